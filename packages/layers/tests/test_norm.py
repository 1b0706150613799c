"""Norms by their formulas, alone, with an activation behind, and in autocast's type."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from imgzoo_layers.drop import DropBlock2d
from imgzoo_layers.fast_norm import FAST, set_fast_norm
from imgzoo_layers.norm import NORM, FrozenBatchNorm2d, GroupNorm, LayerNorm, LayerNormFp32, RmsNorm, get_norm
from imgzoo_layers.norm_act import NORM_ACT, BatchNormAct2d, get_norm_act

MAP = torch.randn(4, 64, 3, 5, generator=torch.Generator().manual_seed(0))


def filled(module):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return module


def affine(x, norm):
    y = x * norm.weight[:, None, None]
    return y + norm.bias[:, None, None] if getattr(norm, "bias", None) is not None else y


FORMULAS = {
    "layernorm2d": lambda x: (x - x.mean(1, True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt(),
    "rmsnorm2d": lambda x: x / (x.square().mean(1, True) + 1e-6).sqrt(),
    "simplenorm2d": lambda x: x / (x.var(1, keepdim=True) + 1e-6).sqrt(),
    "groupnorm1": lambda x: (
        (x - x.mean((1, 2, 3), True)) / (x.var((1, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    ),
    "groupnorm": lambda x: F.group_norm(x, 32),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_norms_of_maps(name):
    norm = filled(get_norm(name)(64))
    torch.testing.assert_close(norm(MAP), affine(FORMULAS[name](MAP), norm))
    plain = get_norm(name)(64, affine=False)
    assert not list(plain.parameters())
    torch.testing.assert_close(plain(MAP), FORMULAS[name](MAP))


@pytest.mark.parametrize("name", ["layernorm", "rmsnorm", "simplenorm"])
def test_norms_of_tokens_are_those_of_maps(name):
    norm, of_maps = filled(get_norm(name)(64)), filled(get_norm(f"{name}2d")(64))
    torch.testing.assert_close(norm(MAP.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), of_maps(MAP))


def test_norms_are_asked_for_by_name():
    assert get_norm("LayerNorm", eps=1e-3)(8).eps == 1e-3 and get_norm(nn.LayerNorm) is nn.LayerNorm
    assert all(isinstance(maker(64), nn.Module) for maker in NORM.values())
    assert GroupNorm(64, group_size=8).num_groups == 8
    with pytest.raises(ValueError, match="unknown norm 'norm'; use one of batchnorm"):
        get_norm("norm")
    with pytest.raises(ValueError, match="do not divide into groups of 7"):
        GroupNorm(64, group_size=7)


def test_float32_whatever_comes():
    norm, x = filled(LayerNormFp32(64)), MAP[:, :, 0, 0]
    assert norm.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(norm.float()(x), F.layer_norm(x, (64,), norm.weight, norm.bias, 1e-6))


def test_frozen_batch_norm_is_batch_norm_in_evaluation():
    norm = nn.BatchNorm2d(64)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor))
    frozen = FrozenBatchNorm2d(64).train()
    frozen.load_state_dict({key: value for key, value in norm.state_dict().items() if "tracked" not in key})
    torch.testing.assert_close(frozen(MAP), norm.eval()(MAP))
    assert not list(frozen.parameters())


@pytest.mark.parametrize("name", ["batchnorm", "groupnorm", "groupnorm1", "layernorm2d", "rmsnorm2d"])
def test_an_activation_behind_a_norm(name):
    """Dropout, where asked for, comes between; evaluation leaves it out."""
    norm = filled(get_norm_act(name, "silu", drop=partial(DropBlock2d, 0.5, 2))(64)).eval()
    bare = get_norm_act(name, "silu")(64, apply_act=False).eval()
    assert list(bare.state_dict()) == list(norm.state_dict())
    bare.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(MAP), F.silu(bare(MAP)))
    dropped = norm.train()(MAP)
    assert (dropped == 0).float().mean() > 0.2 and not torch.equal(dropped, norm(MAP))


def test_batch_norm_with_activation_keeps_torchs_statistics():
    ours, theirs = BatchNormAct2d(64, act="relu"), nn.BatchNorm2d(64)
    for _ in range(2):
        torch.testing.assert_close(ours.train()(MAP), theirs.train()(MAP).relu())
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert ours.num_batches_tracked == 2
    torch.testing.assert_close(ours.eval()(MAP), theirs.eval()(MAP).relu())
    mean = BatchNormAct2d(64, momentum=None)
    mean(MAP)
    torch.testing.assert_close(mean.running_mean, MAP.mean((0, 2, 3)))


def test_norms_that_are_activations():
    norm = filled(get_norm_act("evonorms0")(64))
    std = (
        (MAP.unflatten(1, (32, 2)).var((2, 3, 4), unbiased=False) + 1e-5)
        .sqrt()
        .repeat_interleave(2, 1)[..., None, None]
    )
    expected = MAP * (MAP * norm.v[:, None, None]).sigmoid() / std
    torch.testing.assert_close(norm(MAP), affine(expected, norm))
    norm = filled(get_norm_act("frntlu")(64))
    scaled = affine(MAP / (MAP.square().mean((2, 3), True) + 1e-5).sqrt(), norm)
    torch.testing.assert_close(norm(MAP), torch.maximum(scaled, norm.tau[:, None, None]))
    norm = filled(get_norm_act("frn", "silu")(64))
    scaled = affine(MAP / (MAP.square().mean((2, 3), True) + 1e-5).sqrt(), norm)
    torch.testing.assert_close(norm(MAP), torch.nn.functional.silu(scaled))
    still = filled(get_norm_act("evonorms0a")(64, apply_act=False))
    assert still.v is None and still(MAP).shape == MAP.shape
    assert all(isinstance(maker(64), nn.Module) for maker in NORM_ACT.values())
    with pytest.raises(ValueError, match="unknown norm"):
        get_norm_act("norm")


@pytest.mark.parametrize("kind", FAST)
def test_fast_norms_stay_in_the_type_of_autocast(kind):
    norm = filled(kind(64))
    x = MAP if "2d" in kind.__name__ or "Group" in kind.__name__ else MAP.permute(0, 2, 3, 1)
    network = nn.Sequential(norm, nn.BatchNorm1d(3))
    expected = norm(x)
    assert set_fast_norm(network) == 1 and set_fast_norm(network) == 0
    torch.testing.assert_close(norm(x), expected)  # without autocast nothing changes
    with torch.autocast("cpu", torch.bfloat16):
        low = norm(x)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected, rtol=0.05, atol=0.05)
    assert set_fast_norm(network, False) == 1 and type(norm) is kind
    torch.testing.assert_close(norm(x), expected)


def test_fast_norms_leave_subclasses():
    assert set_fast_norm(nn.Sequential(LayerNormFp32(8), nn.LayerNorm(8))) == 0
    assert set_fast_norm(nn.Sequential(LayerNorm(8), RmsNorm(8))) == 2


class Evolved(nn.BatchNorm2d):
    """A norm of a caller's own, with the field's word for the activation."""

    def __init__(self, dim, apply_act=True, act_layer=nn.ReLU):
        super().__init__(dim)
        self.act = act_layer() if apply_act else nn.Identity()


def test_the_activation_of_a_norm_of_ones_own_is_the_first_that_was_bound():
    made = get_norm_act(get_norm_act(Evolved, nn.SiLU), "relu")
    assert type(made(8).act) is nn.SiLU and type(made(8, apply_act=False).act) is nn.Identity
    assert type(get_norm_act(get_norm_act(partial(Evolved, act_layer=nn.GELU), nn.SiLU), "relu")(8).act) is nn.GELU
    assert type(get_norm_act(Evolved)(8).act) is nn.ReLU


def test_a_frozen_batch_norm_reads_the_state_of_one_that_is_not():
    plain = torch.nn.Sequential(torch.nn.BatchNorm2d(4)).eval()
    plain[0].running_mean.uniform_()
    plain[0].num_batches_tracked.fill_(7)
    frozen = torch.nn.Sequential(FrozenBatchNorm2d(4))
    state = plain.state_dict()
    frozen.load_state_dict(state)
    images = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(frozen(images), plain(images))
    assert "0.num_batches_tracked" in state, "the caller's state stays"
    plain.load_state_dict({**frozen.state_dict()})
