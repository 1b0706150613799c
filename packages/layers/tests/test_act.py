"""Activations by name: modules in place and not, and functions."""

import pytest
import torch
from torch import nn

from imgzoo_layers.act import ACT, act_fn, create_act, get_act

X = torch.linspace(-4, 4, 81)
FORMULAS = {
    "quick_gelu": X / (1 + (-1.702 * X).exp()),
    "hard_mish": X / 2 * (X + 2).clamp(0, 2),
    "hard_swish": X * (X + 3).clamp(0, 6) / 6,
    "hard_sigmoid": (X + 3).clamp(0, 6) / 6,
    "silu": X / (1 + (-X).exp()),
    "mish": X * (1 + X.exp()).log().tanh(),
    "gelu": X / 2 * (1 + (X / 2**0.5).erf()),
    "gelu_tanh": X / 2 * (1 + ((2 / torch.pi) ** 0.5 * (X + 0.044715 * X**3)).tanh()),
    "prelu": torch.where(X > 0, X, X / 4),
    "identity": X,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas(name):
    torch.testing.assert_close(create_act(name)(X.clone()), FORMULAS[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ACT)
def test_in_place_is_the_same(name):
    expected, x = create_act(name)(X.clone()), X.clone()
    torch.testing.assert_close(create_act(name, inplace=True)(x), expected)
    if name in ("sigmoid", "tanh", "hard_mish", "relu"):
        torch.testing.assert_close(x, expected)


@pytest.mark.parametrize("name", sorted(ACT.keys() - {"prelu"}))
def test_functions_leave_their_input(name):
    x = X.clone()
    torch.testing.assert_close(act_fn(name)(x), create_act(name)(X.clone()))
    assert torch.equal(x, X)


def test_what_is_asked_for():
    assert get_act(None) is nn.Identity and get_act("") is nn.Identity and get_act(nn.ReLU) is nn.ReLU
    assert isinstance(create_act(nn.Softplus, inplace=True), nn.Softplus)
    with pytest.raises(ValueError, match="unknown activation 'mush'; use one of relu"):
        get_act("mush")
    with pytest.raises(ValueError, match="weights of its own"):
        act_fn("prelu")
