"""A parameter that a constructor fills twice is filled once, unless somebody looked or wrote in between."""

import copy

import pytest
import torch
from torch import nn

from imgzoo.loading.skeleton import build_initialized


class Twice(nn.Module):
    """Torch fills the layers, then the network fills them again; `touch` comes between or after."""

    def __init__(self, touch=lambda model: None, again=True):
        super().__init__()
        self.conv = nn.Conv2d(16, 64, 5)
        self.fc = nn.Linear(64, 128)
        self.table = nn.Parameter(torch.zeros(100, 64))
        touch(self)
        if again:
            nn.init.normal_(self.conv.weight, std=3.0)


def derive(model):
    model.register_buffer("norms", model.fc.weight.detach().norm(dim=1))


def tie(model):
    model.copied = copy.deepcopy(model.fc)


def scale_behind_autograd(model):
    model.fc.weight.data.mul_(0.1)


def zero_a_slice(model):
    model.fc.weight.data[64:96].zero_()


def split(model):
    nn.init.constant_(model.fc.weight[:64], 2.0)


def normalize(model):
    nn.utils.parametrizations.weight_norm(model.fc)


TOUCHES = (derive, tie, scale_behind_autograd, zero_a_slice, split, normalize)


def test_the_last_initializer_wins_and_the_others_do_not_run(monkeypatch):
    filled = []
    for name in ("normal_", "uniform_"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor,
            name,
            lambda self, *a, original=original, **k: filled.append(self.shape) or original(self, *a, **k),
        )
    model = build_initialized(Twice)
    assert filled.count(model.conv.weight.shape) == 1 and filled.count(model.fc.weight.shape) == 1
    assert 2.5 < model.conv.weight.std() < 3.5
    assert model.fc.weight.abs().max() <= 64**-0.5 + 1e-6
    assert model.table.abs().max() == 0


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_constructor_that_touches_weights_finds_them_filled(touch):
    """One generator for all: a fill that comes early draws other numbers, so equality is of forms, not of values."""
    torch.manual_seed(0)
    model = build_initialized(lambda: Twice(touch))
    expected = Twice(touch)
    for (name, value), plain in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert value.isfinite().all(), name
        assert (value == 0).sum() == (plain == 0).sum() and (value == 2).sum() == (plain == 2).sum(), name
        assert torch.allclose(value.std(), plain.std(), rtol=0.2), name


def test_what_was_derived_from_a_weight_agrees_with_it():
    model = build_initialized(lambda: Twice(lambda m: (derive(m), tie(m)), again=False))
    assert torch.equal(model.norms, model.fc.weight.norm(dim=1))
    assert torch.equal(model.copied.weight, model.fc.weight)


def test_values_depend_on_the_seed_and_not_on_the_threads():
    def make(seed, threads=1):
        torch.manual_seed(seed)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return build_initialized(Twice).state_dict()
        finally:
            torch.set_num_threads(before)

    first, same, other = make(1), make(1, threads=3), make(2)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])
    assert not torch.equal(first["fc.weight"].view(-1)[:1000], first["conv.weight"].view(-1)[:1000])


def test_a_network_inside_a_network_is_filled_once_and_whole():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = build_initialized(Twice)
            self.head = nn.Linear(128, 1000)

    torch.manual_seed(0)
    model = build_initialized(Outer)
    assert 2.5 < model.inner.conv.weight.std() < 3.5
    assert 0 < model.head.weight.abs().max() <= 128**-0.5


def test_an_error_in_a_constructor_leaves_torch_as_it_was():
    before = nn.init.normal_, nn.Module.register_parameter

    def fail():
        nn.Linear(100, 100)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        build_initialized(fail)
    assert (nn.init.normal_, nn.Module.register_parameter) == before
    assert torch.isfinite(nn.Linear(100, 100).weight).all()
