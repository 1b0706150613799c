"""What the wheel compiles is what runs ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import imgzoo_optim
from imgzoo.registry import registry
from imgzoo_optim import c_sources, create_optimizer, kernels
from imgzoo_optim.rules import factored


def test_every_loop_that_a_rule_asks_for_is_compiled_into_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    known, asked = set(c_sources.sources()), set()

    def library(source: str, shipped: Path | None = None) -> None:
        assert shipped == Path(imgzoo_optim.__file__).with_name("compiled")
        asked.add(source)

    monkeypatch.setattr(kernels, "library", library)
    monkeypatch.setattr(factored, "library", library)
    forget()
    for name in registry("optimizers").names():
        if name.startswith(("bnb", "fused", "apex")) or "/" in name:
            continue
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 3))
        optimizer = create_optimizer(name, model, lr=1e-3)
        optimizer.step(lambda model=model: closure(model))
    forget()
    assert len(asked) > 10 and asked <= known


def forget() -> None:
    """What was loaded, or could not be."""
    for cached in (kernels.compiled, kernels.two_passes, factored.compiled_step):
        cached.cache_clear()


def closure(model: torch.nn.Module) -> torch.Tensor:
    with torch.enable_grad():
        loss = model(torch.ones(2, 3, 4, 4)).square().sum()
        for parameter, gradient in zip(
            model.parameters(), torch.autograd.grad(loss, [*model.parameters()], create_graph=True)
        ):
            parameter.grad = gradient
    return loss
