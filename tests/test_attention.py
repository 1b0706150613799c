"""Every attention can let go of torch's fused kernel: hooks then see its weights, and the answers stay."""

import pytest
import torch
from torch import Tensor, nn

import imgzoo
from imgzoo_layers import Attending, set_fused_attn

from structures import REDUCED, STRUCTURES

LARGEST = 60_000_000
"""Parameters of a network that is computed; what larger families attend with is shared, or tested with the layers."""


def forbidden(*args, **kwargs):
    raise AssertionError("the fused kernel was asked for")


def stepwise(model: nn.Module) -> list[Tensor]:
    """Switch the kernel off; the list takes what passes through each `attn_drop`."""
    seen: list[Tensor] = []
    set_fused_attn(model, False)
    for module in model.modules():
        if isinstance(module, Attending):
            module.attn_drop.register_forward_hook(lambda drop, args, weights: seen.append(weights))
    return seen


@pytest.mark.parametrize("family", STRUCTURES)
def test_the_fused_kernel_can_be_switched_off(family, monkeypatch):
    sizes = {}
    for name in STRUCTURES[family]:
        model = imgzoo.create_model(name, device="meta", **REDUCED.get(name, {})).eval()
        attending = any(isinstance(module, Attending) for module in model.modules())
        if attending:
            sizes[name] = sum(each.numel() for each in model.parameters())
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.functional, "scaled_dot_product_attention", forbidden)
            seen = stepwise(model)
            model(torch.empty(2, *model.pretrained_cfg["input_size"], device="meta"))
        assert bool(seen) == attending, name
    if sizes and min(sizes.values()) <= LARGEST:
        answers_stay(min(sizes, key=sizes.__getitem__))


@torch.inference_mode()
def answers_stay(name: str) -> None:
    model = imgzoo.create_model(name, **REDUCED.get(name, {})).double().eval()  # some draws amplify rounding
    x = torch.randn(1, *model.pretrained_cfg["input_size"], dtype=torch.float64)
    expected = model(x)
    seen = stepwise(model)
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    assert seen
