"""EvoNorm by the formulas of its tables."""

import pytest
import torch

from imgzoo_layers.evo_norm import EvoNorm2dS1, EvoNorm2dS2, EvoNorm2dS2a
from imgzoo_layers.evo_norm_batch import EvoNorm2dB0, EvoNorm2dB1, EvoNorm2dB2
from imgzoo_layers.norm_act import get_norm_act

MAP = torch.randn(4, 8, 5, 3, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize(("kind", "other"), [
    (EvoNorm2dB0, lambda x: x + (x.var((2, 3), unbiased=False, keepdim=True) + 1e-3).sqrt()),
    (EvoNorm2dB1, lambda x: (x + 1) * (x.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()),
    (EvoNorm2dB2, lambda x: (x.square().mean((2, 3), keepdim=True) + 1e-5).sqrt() - x),
])  # fmt: skip
def test_batch_kinds(kind, other):
    norm = kind(8).double().train()
    std = (MAP.var((0, 2, 3), unbiased=False) + norm.eps).sqrt()[:, None, None]
    torch.testing.assert_close(norm(MAP), MAP / torch.maximum(std, other(MAP)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * MAP.var((0, 2, 3)), rtol=1e-5, atol=1e-5)
    kept = (norm.eval().running_var + norm.eps).sqrt()[:, None, None]
    torch.testing.assert_close(norm(MAP), MAP / torch.maximum(kept, other(MAP)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(kind(8, apply_act=False).double()(MAP), MAP)


def test_sample_kinds():
    groups = MAP.view(4, 2, 4, 5, 3)
    std = (groups.var((2, 3, 4), unbiased=False) + 1e-5).sqrt().repeat_interleave(4, 1)[..., None, None]
    rms = (groups.square().mean((2, 3, 4)) + 1e-5).sqrt().repeat_interleave(4, 1)[..., None, None]
    silu = torch.nn.functional.silu(MAP)
    torch.testing.assert_close(EvoNorm2dS1(8, 2).double()(MAP), silu / std, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(EvoNorm2dS2(8, 2, act="relu").double()(MAP), MAP.relu() / rms, rtol=1e-5, atol=1e-5)
    still = EvoNorm2dS2a(8, 2, apply_act=False, eps=1e-5).double()
    torch.testing.assert_close(still(MAP), MAP / rms, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("apply_act", [True, False])
@pytest.mark.parametrize("name", ["b0", "b1", "b2", "s0", "s0a", "s1", "s1a", "s2", "s2a"])
def test_names_and_scripts(name, apply_act):
    norm = get_norm_act(f"evonorm{name}", "relu")(32, apply_act=apply_act)
    x = MAP.float().repeat(1, 4, 1, 1)
    scripted = torch.jit.script(norm)
    assert norm(x).isfinite().all()
    torch.testing.assert_close(scripted(x), norm(x))
    torch.testing.assert_close(scripted.eval()(x), norm.eval()(x))
