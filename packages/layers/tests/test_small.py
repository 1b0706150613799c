"""Small parts: arithmetic, blocks, stages, merged branches, cut networks, attention to less."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from imgzoo_layers.attention import LayerScale, LayerScale2d, layer_scale_of
from imgzoo_layers.cross_covariance import CrossCovarianceAttn, PositionalEncodingFourier
from imgzoo_layers.prune import fit_shapes, fit_to_file, out_channels
from imgzoo_layers.reparam import fold_norm, identity_kernel, merged, reparameterize
from imgzoo_layers.sequential import GridSequential, PairSequential, SharedSequential
from imgzoo_layers.stage import Stage
from imgzoo_layers.subsampled_attention import SubsampledAttention
from imgzoo_layers.transformer import Block, GammaBlock
from imgzoo_layers.util import dilate, make_divisible, pair, per_stage


@pytest.mark.parametrize("value, expected", [(16, 16), (17, 16), (20, 24), (3, 8), (8.8, 8), (11, 16)])
def test_channels_are_rounded(value, expected):
    assert make_divisible(value) == expected and expected >= 0.9 * value


def test_pairs_and_stages():
    assert pair(3) == (3, 3) and pair([3, 4]) == (3, 4) and pair("ab") == ("ab", "ab")
    assert per_stage(2, 3) == [2, 2, 2] and per_stage((1, 2), 2) == [1, 2]
    with pytest.raises(ValueError, match="3 stages need 3 values"):
        per_stage([1, 2], 3)
    assert dilate([2, 2, 2], 32, 4) == [(2, 1, 1), (2, 1, 1), (2, 1, 1)]
    assert dilate([2, 2, 2], 8, 4) == [(2, 1, 1), (1, 1, 2), (1, 2, 4)]


def test_blocks_add_attention_then_mlp():
    torch.manual_seed(0)
    x, attn, mlp = torch.randn(2, 5, 8), nn.Linear(8, 8), nn.Linear(8, 8)
    block = Block(8, attn, mlp, nn.LayerNorm, layer_scale=0.5)
    y = x + 0.5 * attn(F.layer_norm(x, (8,)))
    expected = y + 0.5 * mlp(F.layer_norm(y, (8,)))
    torch.testing.assert_close(block(x), expected)
    torch.testing.assert_close(GammaBlock(8, attn, mlp, nn.LayerNorm, 0.5)(x), expected)
    first = GammaBlock(8, attn, mlp, nn.LayerNorm, 0.5, attn_only=True)
    torch.testing.assert_close(first(x), y + mlp(F.layer_norm(y, (8,))))
    assert "gamma_1" in first.state_dict() and "gamma_2" not in first.state_dict()
    assert "ls1.gamma" not in Block(8, attn, mlp).state_dict()
    torch.manual_seed(0)
    assert not torch.equal(Block(8, attn, mlp, drop_path=0.9).train()(x), expected)


def test_layer_scale():
    x = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(LayerScale2d(8, 0.1)(x), LayerScale(8, 0.1)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
    assert isinstance(layer_scale_of(8, None), nn.Identity)


def test_stages_and_pairs_run_in_order():
    stage = Stage(nn.Conv2d(3, 4, 2, 2), nn.ReLU(), nn.Conv2d(4, 4, 1))
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(stage(x), stage.blocks[1](stage.downsample(x).relu()))
    assert [key.split(".")[0] for key in stage.state_dict()] == ["downsample"] * 2 + ["blocks"] * 2

    class Swap(nn.Module):
        def forward(self, x: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            return x[1], x[0] + 1

    first, second = PairSequential(Swap(), Swap())((torch.zeros(1), torch.zeros(1)))
    assert first.item() == second.item() == 1


class Growing(nn.Module):
    def forward(self, x: tuple[torch.Tensor, tuple[int, int]]) -> tuple[torch.Tensor, tuple[int, int]]:
        return x[0] + 1, (2 * x[1][0], x[1][1])


class Adding(nn.Module):
    def forward(self, x: tuple[torch.Tensor, torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor | None]:
        y, shared = x
        return y + 1 if shared is None else y + shared, shared


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch advises against scripting
@pytest.mark.parametrize("convert", [lambda module: module, torch.jit.script], ids=["as it is", "scripted"])
def test_sequences_carry_what_goes_with_tokens(convert):
    tokens, grid = convert(GridSequential(Growing(), Growing()))((torch.zeros(1), (3, 5)))
    assert tokens.item() == 2 and grid == (12, 5)
    adding = convert(SharedSequential(Adding(), Adding()))
    tokens, shared = adding((torch.zeros(1), torch.tensor(3)))
    assert tokens.item() == 6 and shared == 3
    assert adding((torch.zeros(1), None))[0].item() == 2


class Branches(nn.Module):
    """A 3x3 convolution and the identity, each with a norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.skip = (
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.BatchNorm2d(4),
        )

    def forward(self, x):
        return self.conv(x) if self.norm is None else self.norm(self.conv(x)) + self.skip(x)

    def reparameterize(self):
        skip = fold_norm(identity_kernel(4, 1, 1, self.conv.weight), self.skip)
        self.conv = merged(self.conv, [fold_norm(self.conv.weight, self.norm), skip])
        self.norm = self.skip = None


def test_branches_become_one_convolution():
    model, x = nn.Sequential(Branches()), torch.randn(4, 4, 5, 5)
    for _ in range(3):
        model.train()(x)
    one = reparameterize(model)
    assert list(one.state_dict()) == ["0.conv.weight", "0.conv.bias"] and model[0].norm is not None
    torch.testing.assert_close(one(x), model.eval()(x), rtol=1e-4, atol=1e-5)
    assert reparameterize(model, inplace=True) is model and model[0].norm is None


def test_networks_are_cut_to_shapes(monkeypatch, tmp_path):
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8, 5)
    )
    fit_shapes(model, {"0.weight": [6, 4, 3, 3], "1.weight": [6], "2.weight": [6, 1, 3, 3], "4.weight": [5, 6]})
    assert model(torch.randn(2, 4, 5, 5)).shape == (2, 5) and out_channels(model) == 6
    folder = tmp_path / "acme" / "catalog" / "pruned"
    folder.mkdir(parents=True)
    (tmp_path / "acme" / "__init__.py").touch()
    (folder / "half.json").write_text(json.dumps({"0.weight": [3, 3, 3, 3], "1.weight": [3], "2.weight": [3, 1, 3, 3],
                                                  "4.weight": [1000, 3]}))  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    fit_to_file(model, "acme", "half")
    assert model(torch.randn(2, 4, 5, 5)).shape == (2, 5)  # channels of the image and classes stay the model's


def test_attention_between_channels():
    torch.manual_seed(0)
    attn, x = CrossCovarianceAttn(8, 2).double(), torch.randn(2, 5, 8).double()
    q, k, v = attn.qkv(x).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)  # (B, heads, N, D)
    scores = (F.normalize(q, dim=2).transpose(2, 3) @ F.normalize(k, dim=2)).softmax(3)
    expected = attn.proj((v @ scores.transpose(2, 3)).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attn(x), expected)


def test_position_by_waves():
    encode = PositionalEncodingFourier(6, waves=4)
    y = encode(torch.zeros(3, 1, 4, 5))
    assert y.shape == (1, 6, 4, 5)
    small, large = encode(torch.zeros(1, 1, 4, 5)), encode(torch.zeros(1, 1, 8, 10))
    torch.testing.assert_close(large[:, :, 1::2, 1::2], small, rtol=1e-4, atol=1e-4)  # places are relative


@pytest.mark.parametrize("ratio, pooled", [(1, False), (2, False), (1, True)])
def test_attention_to_a_smaller_map(ratio, pooled):
    torch.manual_seed(0)
    attn, x = SubsampledAttention(8, 2, ratio, pooled).double(), torch.randn(2, 4, 6, 8).double()
    less = attn.subsampled(x)
    assert less.shape == (2, {(1, False): 24, (2, False): 6, (1, True): 49}[ratio, pooled], 8)
    q = attn.q(x).flatten(1, 2).unflatten(2, (2, 4)).transpose(1, 2)
    k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in attn.kv(less).chunk(2, 2))
    expected = attn.proj(((q @ k.transpose(2, 3) / 2).softmax(3) @ v).transpose(1, 2).flatten(2)).view(x.shape)
    torch.testing.assert_close(attn(x), expected)
    with pytest.raises(ValueError, match="does not divide into 3 heads"):
        SubsampledAttention(8, 3, 1)
