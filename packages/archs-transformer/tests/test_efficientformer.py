"""Files of EfficientFormer hold the index of each bias; a model of another size keeps its own."""

import pytest
import torch

import imgzoo

TINY = dict(depths=(1, 1, 1, 2), embed_dims=(8, 16, 16, 32), num_vit=1, num_classes=5)
INDEX = "stages.3.blocks.2.token_mixer.attention_bias_idxs"


@pytest.mark.parametrize("size", [64, 160, (96, 64)])
def test_file_of_another_size(tmp_path, size):
    small = imgzoo.create_model("efficientformer_l1", img_size=64, **TINY).eval()
    torch.nn.init.normal_(small.stages[3].blocks[2].token_mixer.attention_biases)
    assert small.state_dict()[INDEX].shape == (4, 4)
    torch.save(small.state_dict(), tmp_path / "small.pth")
    model = imgzoo.create_model("efficientformer_l1", pretrained=tmp_path / "small.pth", img_size=size, **TINY).eval()
    assert model.load_report.initialized == []
    small.set_input_size(size)
    assert model.state_dict().keys() == small.state_dict().keys()
    assert torch.equal(model.state_dict()[INDEX], small.state_dict()[INDEX])
    image = torch.randn(2, 3, *small.img_size)
    with torch.inference_mode():
        torch.testing.assert_close(model(image), small(image))


def test_index_of_a_file_is_not_believed(tmp_path):
    model = imgzoo.create_model("efficientformer_l1", img_size=64, **TINY)
    torch.save({**model.state_dict(), INDEX: torch.zeros(4, 4, dtype=torch.long)}, tmp_path / "wrong.pth")
    again = imgzoo.create_model("efficientformer_l1", pretrained=tmp_path / "wrong.pth", img_size=64, **TINY)
    assert torch.equal(again.state_dict()[INDEX], model.state_dict()[INDEX])


def test_index_that_our_files_lack_is_left_out(tmp_path):
    options = dict(depths=(1, 1, 1, 1), embed_dims=(8, 16, 16, 32), num_heads=(1, 2, 2, 4), num_classes=5)
    model = imgzoo.create_model("tiny_vit_5m_224", **options)
    index = {"stages.1.blocks.0.attn.attention_bias_idxs": torch.zeros(49, 49, dtype=torch.long)}
    torch.save({**model.state_dict(), **index}, tmp_path / "more.pth")
    again = imgzoo.create_model("tiny_vit_5m_224", pretrained=tmp_path / "more.pth", **options)
    assert again.load_report.initialized == [] and again.state_dict().keys() == model.state_dict().keys()
