"""Merging the branches of RepVGG and MobileOne blocks leaves the outputs as they are."""

import pytest
import torch

import imgzoo
from imgzoo.errors import CapabilityError, UsageError


def with_statistics(model):
    """A model whose norms have seen something, so that merging them matters."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
            module.bias.data.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
            module.running_mean.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
            module.running_var.copy_(2 + torch.rand(module.bias.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("options", [
    {"blocks": "rep", "stem": "rep"},
    {"blocks": "rep rep4", "stem": "rep"},
    {"blocks": "rep", "stem": "rep", "gate": "se"},
    {"blocks": "one_dw one_pw", "stem": "one", "branches": 3},
], ids=["plain", "grouped", "gated", "mobile"])  # fmt: skip
@torch.no_grad()
def test_merged_blocks_compute_the_same(options):
    from imgzoo_archs_cnn.byobnet import ByobNet

    torch.manual_seed(0)
    shape = dict(depths=(2, 2, 3, 2), dims=(16, 32, 32, 64), strides=(2, 2, 2, 2), stem_width=16, num_classes=5)
    model = with_statistics(ByobNet(**shape, **options)).double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    merged = model.reparameterize()
    torch.testing.assert_close(merged(x), model(x), atol=1e-10, rtol=1e-8)
    branches = [key for key in merged.state_dict() if "identity" in key or "conv_kxk" in key or ".bn." in key]
    assert not branches and "stages.0.1.reparam_conv.bias" in merged.state_dict()
    again = merged.reparameterize(inplace=True)
    assert again is merged
    torch.testing.assert_close(torch.jit.script(merged)(x), model(x), atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s1"])
@torch.no_grad()
def test_merged_in_float32(name):
    torch.manual_seed(0)
    model = with_statistics(imgzoo.create_model(name))
    x = torch.randn(1, 3, 96, 96)
    merged, logits = model.reparameterize(), model(x)
    assert (merged(x) - logits).abs().max() <= 1e-5 * logits.abs().max()
    assert sum(p.numel() for p in merged.parameters()) < sum(p.numel() for p in model.parameters())


def test_options_that_do_not_fit_are_told():
    with pytest.raises(UsageError, match="dims has 2 entries and depths 4: give one a stage"):
        imgzoo.create_model("gcresnet50t", dims=[8, 16])
    with pytest.raises(UsageError, match="self_attn"):
        imgzoo.create_model("gcresnet50t", blocks="self_attn")
    with pytest.raises(CapabilityError, match="token"):
        imgzoo.create_model("resnet50_clip", global_pool="avg", device="meta")


def test_position_tables_follow_the_size():
    model = imgzoo.create_model("resnet50_clip", num_classes=3, img_size=160).eval()
    assert model.head.pos_embed.shape[0] == 1 + 5 * 5
    model.set_input_size((192, 128))
    assert model.head.pos_embed.shape[0] == 1 + 6 * 4
    assert model(torch.randn(1, 3, 192, 128)).shape == (1, 3)
