"""Pools by their formulas: global, to a size, "same", blurred, learned, by attention."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from imgzoo_layers.attention_pool import AttentionPoolLatent, AttentionPoolPrr
from imgzoo_layers.learned_pool import LogSumExpPool, LogSumExpPool2d, SimPool, SimPool2d
from imgzoo_layers.padding import pad_same, pad_to_multiple, same_pad
from imgzoo_layers.pool import (
    AdaptivePool2d,
    AvgPool2dSame,
    BlurPool2d,
    GlobalPool,
    MaxPool2dSame,
    MedianPool2d,
    create_aa,
)
from imgzoo_layers.rotary_pool import RotaryAttentionPool2d

MAP = torch.randn(2, 16, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TOKENS = MAP.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("channels_last", [False, True])
def test_global_pools(channels_last):
    mean, most = MAP.mean((2, 3)), MAP.amax((2, 3))
    x = MAP.permute(0, 2, 3, 1) if channels_last else MAP
    expected = {"avg": mean, "max": most, "avgmax": (mean + most) / 2, "catavgmax": torch.cat([mean, most], 1), "": x,
                "fast": mean, "fastmax": most}  # fmt: skip
    for kind, value in expected.items():
        pool = GlobalPool(kind, channels_last)
        torch.testing.assert_close(pool(x), value)
        assert pool.width == (2 if kind == "catavgmax" else 1)
    with pytest.raises(ValueError, match="use one of avg, max, avgmax, catavgmax or ''"):
        GlobalPool("median")
    with pytest.raises(ValueError, match="use one of avg, max, avgmax or ''"):
        GlobalPool("catavgmax", widens=False)


@pytest.mark.parametrize("kind", ["avg", "max", "avgmax", "catavgmax"])
def test_pools_to_a_size(kind):
    torch.testing.assert_close(AdaptivePool2d(1, kind, flatten=True)(MAP), GlobalPool(kind)(MAP))
    pooled = AdaptivePool2d((5, 7), kind)(MAP)  # of one position each
    torch.testing.assert_close(pooled, torch.cat([MAP, MAP], 1) if kind == "catavgmax" else MAP)
    assert AdaptivePool2d((2, 3), kind, flatten=True)(MAP).shape == (2, 6 * pooled.shape[1])
    with pytest.raises(ValueError, match="unknown pool"):
        AdaptivePool2d(2, "median")


@pytest.mark.parametrize("size", [5, 6, 7])
@pytest.mark.parametrize(
    "kernel, stride, dilation", [((3, 2), (2, 1), (1, 1)), ((2, 2), (2, 3), (1, 1)), ((3, 3), (2, 2), (2, 1))]
)
def test_same_padding(size, kernel, stride, dilation):
    """Outputs have ceil(size / stride) positions; the odd pixel lies at the bottom right and never wins a maximum."""
    x = -torch.rand(1, 2, size, size) - 1
    most = MaxPool2dSame(kernel, stride, dilation)(x)
    assert most.shape[2:] == tuple(-(size // -step) for step in stride) and (most < 0).all()
    if dilation == (1, 1):
        mean = AvgPool2dSame(kernel, stride, count_include_pad=False)(torch.ones_like(x))
        assert mean.shape == most.shape and mean.max() == 1
    borders = [same_pad(size, *each) for each in zip(kernel, stride, dilation)]
    padded = pad_same(torch.zeros(1, 1, size, size), kernel, stride, dilation, value=1.0)
    assert padded.shape[2:] == (size + borders[0], size + borders[1])
    assert padded[0, 0, : borders[0] // 2].all() and not padded[0, 0, borders[0] // 2, borders[1] // 2]


def test_padding_to_a_multiple():
    x = torch.ones(1, 5, 7, 3)
    padded = pad_to_multiple(x, (4, 7))
    assert padded.shape == (1, 8, 7, 3) and padded.sum() == x.sum() and torch.equal(padded[:, :5], x)
    assert pad_to_multiple(x, (5, 7)) is x


def test_blur():
    pool = BlurPool2d(16).double()
    taps = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])).double() / 16
    torch.testing.assert_close(pool(MAP)[:, :, 1, 1], (MAP[:, :, 1:4, 1:4] * taps).sum((2, 3)))
    assert pool(MAP).shape == (2, 16, 3, 4) and not pool.state_dict()
    torch.testing.assert_close(pool(torch.ones_like(MAP)), torch.ones(2, 16, 3, 4, dtype=MAP.dtype))
    assert create_aa("blurpc", 16)(torch.ones(1, 16, 4, 4))[0, 0, 0, 0] < 1  # zeros beyond the border
    assert isinstance(create_aa("avg", 16), nn.AvgPool2d) and isinstance(create_aa(None, 16), nn.Identity)
    with pytest.raises(ValueError, match="unknown anti-aliasing 'blob'"):
        create_aa("blob", 16)
    with pytest.raises(ValueError, match="at least 2 taps"):
        BlurPool2d(16, filter_size=1)


def test_log_sum_exp_lies_between_mean_and_maximum():
    for r, expected in ((1e-3, MAP.mean((2, 3))), (1e3, MAP.amax((2, 3))), (-1e3, MAP.amin((2, 3)))):
        torch.testing.assert_close(LogSumExpPool2d(r).double()(MAP), expected, atol=0.01, rtol=0)
    expected = ((3 * MAP).exp().mean((2, 3))).log() / 3
    torch.testing.assert_close(LogSumExpPool(3.0).double()(TOKENS), expected)
    assert LogSumExpPool2d(3.0, flatten=False)(MAP.float()).shape == (2, 16, 1, 1)
    assert [*LogSumExpPool().parameters()] and not [*LogSumExpPool(learn=False).parameters()]
    with pytest.raises(ValueError, match="use the mean"):
        LogSumExpPool(0.0)


@pytest.mark.parametrize("gamma", [None, 1.25])
def test_the_mean_asks(gamma):
    pool = SimPool(16, 2, qk_norm=True, gamma=gamma).double()
    y = F.layer_norm(TOKENS, (16,), eps=1e-6)
    q = F.layer_norm(pool.q(TOKENS.mean(1)).unflatten(1, (2, 8)), (8,), eps=1e-6)
    k = F.layer_norm(pool.k(y).unflatten(2, (2, 8)), (8,), eps=1e-6)
    weights = torch.einsum("bhd,bnhd->bhn", q, k).div(8**0.5).softmax(2)
    values = y if gamma is None else (y - y.amin(1, keepdim=True) + 1e-6) ** gamma
    expected = torch.einsum("bhn,bnhd->bhd", weights, values.unflatten(2, (2, 8))).flatten(1)
    expected = expected if gamma is None else expected ** (1 / gamma)
    torch.testing.assert_close(pool(TOKENS), expected)
    maps = SimPool2d(16, 2, qk_norm=True, gamma=gamma).double()
    maps.load_state_dict(pool.state_dict())
    torch.testing.assert_close(maps(MAP), expected)
    with pytest.raises(ValueError, match="does not divide into 3 heads"):
        SimPool(16, 3)


def test_latents_ask():
    pool = AttentionPoolLatent(16, 2, latents=3, pool="", tokens=35, qk_norm=True, dim_out=12).double()
    x = TOKENS + pool.pos_embed
    k, v = pool.kv(x).unflatten(2, (2, 2, 8)).unbind(2)
    q = pool.q_norm(pool.q(pool.latent[0]).unflatten(1, (2, 8)))
    weights = torch.einsum("mhd,bnhd->bhmn", q, pool.k_norm(k)).div(8**0.5).softmax(3)
    y = pool.proj(torch.einsum("bhmn,bnhd->bmhd", weights, v).flatten(2))
    expected = y + pool.mlp(pool.norm(y))
    torch.testing.assert_close(pool(TOKENS), expected)
    for kind, value in (("token", expected[:, 0]), ("avg", expected.mean(1))):
        pool.pool = kind
        torch.testing.assert_close(pool(TOKENS), value)
    masked = torch.zeros(2, 1, 1, 35, dtype=MAP.dtype)
    masked[..., 20:] = -torch.inf
    other = TOKENS.clone()
    other[:, 20:] = 9
    torch.testing.assert_close(pool(other, masked), pool(TOKENS, masked))
    assert "q.weight" not in AttentionPoolLatent(16, 2, q_proj=False).state_dict()
    for options, said in (({"pool": "max"}, "use token, avg"), ({"qk_norm": True, "norm": None}, "needs a norm")):
        with pytest.raises(ValueError, match=said):
            AttentionPoolLatent(16, 2, **options)


def test_attention_without_weights():
    pool = AttentionPoolPrr(16, 2)
    heads = TOKENS.unflatten(2, (2, 8)).transpose(1, 2)
    expected = (heads @ heads.transpose(2, 3) / 8**0.5).softmax(3) @ heads
    torch.testing.assert_close(pool(TOKENS), expected[:, :, 0].flatten(1))
    with pytest.raises(ValueError, match="does not divide"):
        AttentionPoolPrr(16, 3)
    heads = TOKENS.unflatten(2, (2, 8)).transpose(1, 2)
    mean = ((heads @ heads.mT / 8**0.5).softmax(-1) @ heads).mean(2).flatten(1)
    torch.testing.assert_close(AttentionPoolPrr(16, 2, pool="avg")(TOKENS), mean)
    with pytest.raises(ValueError, match="use token or avg"):
        AttentionPoolPrr(16, 2, pool="max")


@pytest.mark.parametrize("options", [{}, {"separate": True}, {"class_token": True}, {"rotary": "centered"}])
def test_rotary_pool(options):
    """Of any size, where places count."""
    torch.manual_seed(0)
    pool = RotaryAttentionPool2d(16, 10, 7, inner=32, heads=2, **options).double().eval()
    assert pool(MAP).shape == (2, 10) and pool(MAP, pre_logits=True).shape == (2, 32)
    assert pool(MAP[:, :, :3]).shape == (2, 10)
    turned = pool(MAP.flip(2))
    assert not torch.allclose(pool(MAP), turned)
    every = RotaryAttentionPool2d(16, 10, 7, inner=32, heads=2, pool=False, **options).double().eval()
    assert every(MAP).shape == (2, 10, 5, 7)
    with pytest.raises(ValueError, match="use axial or centered"):
        RotaryAttentionPool2d(16, rotary="mixed", head_dim=8)


def test_medians_of_windows():
    x = torch.arange(15.0).view(1, 1, 3, 5)
    assert MedianPool2d()(x).flatten().tolist() == [6, 7, 8]
    assert MedianPool2d(padding=1)(x).shape == (1, 1, 3, 5)
    assert MedianPool2d(3, 2, "same")(x).shape == (1, 1, 2, 3)
    assert MedianPool2d(2, 2)(x).flatten().tolist() == [1, 3]  # the lower of the two in the middle


@pytest.mark.parametrize("pool", [LogSumExpPool2d(), LogSumExpPool2d(flatten=False), SimPool2d(16), SimPool2d(16, 2),
                                  SimPool2d(16, gamma=1.25), MedianPool2d(padding="same"), MedianPool2d(3, 2, 1),
                                  AvgPool2dSame(3, 2), MaxPool2dSame(3, 2),
                                  AdaptivePool2d(2, "catavgmax")])  # fmt: skip
def test_pools_of_maps_script(pool):
    x = MAP.float()
    torch.testing.assert_close(torch.jit.script(pool.eval())(x), pool.eval()(x))
