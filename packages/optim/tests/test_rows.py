"""The compiled form of whole rules: two passes over memory, with sums over rows between them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from imgzoo.registry import registry
from imgzoo_optim import create_optimizer, kernels
from imgzoo_optim.base import ROW

NAMES = ("lamb", "lambw", "adamp", "sgdp")
SHAPES = [(300, 1030), (1, 700, 400), (64, 20, 3, 3), (48, 1, 3, 3), (33, 2), (5,), (ROW + 7,), (), (0, 4), (7, 1)]
pytestmark = pytest.mark.skipif(kernels.library("int one = 1;") is None, reason="needs a C compiler")


def tangent(gradient: Tensor, weight: Tensor, rows: int) -> Tensor:
    """A gradient without what lies along each of some rows of the weight."""
    g, w = gradient.reshape(rows, -1), weight.reshape(rows, -1)
    return (g - w * ((g * w).sum(1, keepdim=True) / (w * w).sum(1, keepdim=True))).view_as(gradient)


def trained(name: str, dtype: torch.dtype = torch.float32, last: bool = False, **options: Any) -> list[Parameter]:
    """Parameters after five steps along gradients that are tangent to their channels, to themselves, or to nothing."""
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in SHAPES]
    if last:
        params[2] = Parameter(params[2].detach().to(memory_format=torch.channels_last))
    optimizer = create_optimizer(name, params, lr=1e-2, weight_decay=0.05, **options)
    for i in range(5):
        for k, param in enumerate(params):
            gradient = torch.randn(param.shape, generator=generator, dtype=torch.float64)
            if param.numel() and (i + k) % 3:
                gradient = tangent(gradient, param.detach().double(), len(param) if param.ndim and i % 2 else 1)
            param.grad = gradient.to(dtype).contiguous(memory_format=form(param))
        optimizer.step()
    return params


def form(param: Tensor) -> torch.memory_format:
    return torch.contiguous_format if param.is_contiguous() else torch.channels_last


@pytest.mark.parametrize("options", [{}, {"betas": (0.8, 0.9)}, {"momentum": 0.8, "nesterov": True}])
@pytest.mark.parametrize("name", NAMES)
def test_steps_are_those_of_operations_on_tensors(name: str, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = registry("optimizers").resolve(name).load()
    if ("momentum" in options) != (name == "sgdp") and options:
        options = {"nesterov": True} if name == "adamp" else {"always_adapt": True} if "lamb" in name else {}
    ran = []
    monkeypatch.setattr(kernels, "run_rows", lambda *given, run=kernels.run_rows: ran.append(run(*given)))
    here = trained(name, **options)
    assert len(ran) == 5, "the compiled form was not used"
    monkeypatch.setattr(rule, "kernel", None)
    for mine, truth in zip(here, trained(name, torch.float64, **options), strict=True):
        torch.testing.assert_close(mine.double(), truth.double(), rtol=2e-5, atol=1e-5)
    assert len(ran) == 5


@pytest.mark.parametrize("name", NAMES)
def test_neither_threads_nor_the_layout_change_a_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = trained(name)
    for threads in (2, 3, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        kernels._pool.cache_clear()
        assert all(torch.equal(a, b) for a, b in zip(alone, trained(name), strict=True))
    for a, b in zip(alone, trained(name, last=True), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_every_rule_that_says_its_step_apart_compiles() -> None:
    known = [registry("optimizers").resolve(name).load() for name in registry("optimizers").names() if "/" not in name]
    rules = {rule.kernel for rule in known if getattr(rule, "kernel", None) and rule.kernel.step}
    assert len(rules) >= 3 and all(kernels.two_passes(kernel) for kernel in rules)


@pytest.mark.parametrize("name", ["adamp", "sgdp"])
def test_a_first_axis_of_one_is_one_channel_however_it_is_cut(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are no channels: only the whole was taken as such where it had to be cut."""

    def run(limit: int) -> Tensor:
        monkeypatch.setitem(__import__("imgzoo_optim.base").base.BLOCK, "cpu", limit)
        generator = torch.Generator().manual_seed(0)
        param = Parameter(torch.randn(1, 60, 50, generator=generator, dtype=torch.float64))
        optimizer = create_optimizer(name, [param], lr=1e-2, weight_decay=0.05)
        for _ in range(3):
            param.grad = tangent(torch.randn(1, 60, 50, generator=generator, dtype=torch.float64), param.detach(), 60)
            optimizer.step()
        return param.detach()

    torch.testing.assert_close(run(64), run(1 << 18), rtol=1e-12, atol=1e-12)
