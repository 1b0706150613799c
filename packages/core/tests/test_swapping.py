"""Techniques that swap a module's class: they combine, and what carries them is copied, pickled and saved."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from imgzoo.model.swapping import Checkpointed, mixins_of, plain_class, swap_in, swap_out


class Doubled:
    def forward(self, x):
        return 2 * super().forward(x)


class Shifted:
    def forward(self, x):
        return super().forward(x) + 1


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(3, 3)


X = torch.linspace(-1, 1, 6).reshape(2, 3)


def through_a_file(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), through_a_file])
def test_what_carries_techniques_is_copied_and_saved(layer, copied):
    plain, keys = layer(X), list(layer.state_dict())
    for mixin in (Doubled, Shifted, Checkpointed):
        swap_in(layer, mixin)
    twin = copied(layer)
    assert type(twin) is type(layer) and mixins_of(twin) == (Doubled, Shifted, Checkpointed)
    assert list(twin.state_dict()) == keys and isinstance(twin, nn.Linear) and type(twin).__name__ == "Linear"
    assert torch.equal(twin(X), 2 * plain + 1)
    twin.weight.data.zero_()
    assert layer.weight.abs().sum() > 0


def test_techniques_come_and_go_in_any_order(layer):
    plain = layer(X)
    swap_in(layer, Doubled)
    swap_in(layer, Shifted)
    swap_in(layer, Doubled)
    assert torch.equal(layer(X), 2 * plain + 1), "the last to come is outermost, twice is once"
    swap_out(layer, Doubled)
    assert torch.equal(layer(X), plain + 1) and plain_class(layer) is nn.Linear
    swap_out(layer, Shifted)
    swap_out(layer, Shifted)
    assert type(layer) is nn.Linear and torch.equal(layer(X), plain)


def test_gradients_with_checkpointing_are_those_without(layer):
    twin = copy.deepcopy(layer)
    swap_in(twin, Checkpointed)
    for module in (layer, twin):
        module(X).square().sum().backward()
    assert torch.equal(layer.weight.grad, twin.weight.grad)
