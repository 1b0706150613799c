"""Early checkpoints of the reconstructed Swin V2 load and compute the same."""

import torch

import imgzoo

SMALL = dict(embed_dim=16, depths=(1, 2, 1, 1), num_heads=(1, 2, 4, 8), img_size=64, num_classes=5)


def test_temperatures_become_scales(tmp_path):
    torch.manual_seed(0)
    model = imgzoo.create_model("swinv2_cr_tiny_ns_224", **SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    state = {key.replace("head.fc", "head"): value for key, value in model.state_dict().items()}
    for key in [key for key in state if key.endswith("logit_scale")]:
        state[key.replace("logit_scale", "tau")] = 1 / state.pop(key).exp()
    torch.save({"state_dict": state}, tmp_path / "early.pth")
    again = imgzoo.create_model("swinv2_cr_tiny_ns_224", pretrained=tmp_path / "early.pth", **SMALL).eval()
    assert again.load_report.format == "early"
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again(x), model(x))
