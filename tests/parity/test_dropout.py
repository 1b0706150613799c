"""Dropout of the field's options falls where the peer's does: one seed, the same training outputs."""

from typing import Any

import pytest
import torch

import imgzoo
from imgzoo.options import parameters_of

import kit
from kit import timm
from small import SMALLEST
from structures import COMPARED

pytestmark = pytest.mark.parity

RATES = ("pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate")
FAMILIES = {family: SMALLEST[family] for family in COMPARED}


def taken(name: str) -> list[str]:
    parameters = parameters_of(imgzoo.get_spec(name).load())[0]
    return [rate for rate in RATES if rate in parameters]


IDLE = {"coat": "attn_drop_rate", "hiera": "patch_drop_rate", "vision_transformer_sam": "patch_drop_rate"}
"""What the peer takes and never asks for, or cannot run with."""
WINDOWED = ("nest_tiny", "attn_drop_rate")
"""Weights of all windows are drawn head by head there, here window by window."""
CASES = [(name, rate) for name in FAMILIES.values() for rate in taken(name)]
CASES += [("vit_small_patch16_rope_mixed_ape_224", "patch_drop_rate"), ("caformer_s18", "proj_drop_rate")]


@pytest.fixture(autouse=True)
def drawn_by_place(monkeypatch):
    """Dropout draws by the place in the tensor, where one side's is permuted in memory or inside of torch's kernel;
    -> how many numbers each call draws."""
    counts = []

    def dropout(x, p=0.5, training=True, inplace=False):
        if not (training and p):
            return x
        counts.append(x.numel())
        return x * (torch.rand(x.shape) >= p) / (1 - p)

    def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
        scores = q @ k.transpose(-2, -1) * (scale or q.shape[-1] ** -0.5)
        return dropout((scores if attn_mask is None else scores + attn_mask).softmax(-1), dropout_p) @ v

    monkeypatch.setattr(torch.nn.functional, "dropout", dropout)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    return counts


@pytest.mark.parametrize("name, rate", CASES)
def test_training_draws_the_same(name, rate, drawn_by_place):
    options: dict[str, Any] = {"depth": 2} if "depth" in imgzoo.get_spec(name).field else {}
    if "drop_path_rate" in parameters_of(imgzoo.get_spec(name).load())[0]:
        options["drop_path_rate"] = 0.0
    peer, ours = kit.pair(name, **{**options, rate: 0.2})
    ours.layout = "plain"
    x = kit.image(kit.input_sizes(name)[0])
    with torch.no_grad():
        torch.manual_seed(0)
        want = peer.train()(x)
        torch.manual_seed(0)
        got = ours.train()(x)
    half = len(drawn_by_place) // 2
    assert drawn_by_place[:half] == drawn_by_place[half:]
    if (name, rate) != WINDOWED:
        kit.assert_equal(got, want, rate)


def test_patches_of_several_images_draw_the_same():
    peer, ours = kit.pair("naflexvit_base_patch16_parfac_gap", depth=2, patch_drop_rate=0.4)
    places = torch.cartesian_prod(torch.arange(3), torch.arange(4)).expand(2, -1, -1)
    batch = {"patches": torch.randn(2, 12, 768), "patch_coord": places, "patch_valid": torch.ones(2, 12).bool()}
    with torch.no_grad():
        torch.manual_seed(0)
        want = peer.train()(batch)
        torch.manual_seed(0)
        kit.assert_equal(ours.train()(batch), want, "logits")


@pytest.mark.parametrize("family", FAMILIES)
def test_no_rate_of_the_peer_is_refused(family):
    name = FAMILIES[family]
    for rate in {*RATES} - {*taken(name), IDLE.get(family)}:
        with torch.device("meta"), pytest.raises(TypeError, match=rate):
            timm.create_model(name, **{rate: 0.2})
