"""Options without sense: every value of every option of every optimizer and schedule is refused by name, or works."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch

from imgzoo.errors import CapabilityError, UnknownNameError, UsageError
from imgzoo.registry import registry
from imgzoo_optim import create_optimizer, create_scheduler
from imgzoo_optim.factory import optimizer_options
from imgzoo_optim.options import accepted
from imgzoo_optim.schedules import Schedule
from imgzoo_optim.table import optimizers

NUMBERS = (math.nan, math.inf, -math.inf, -1, 0, 0.5, 1, 2)
VALUES = (*NUMBERS, "x", "", True, None, (2.0, 1.0), [0.5] * 3, {}, torch.float64)
REFUSED = (UsageError, CapabilityError, UnknownNameError)
TORCHS = ("differentiable", "capturable")
"""Options of torch's own that the program around the optimizer has to be written for."""

ROWS = {spec.target: spec for spec in optimizers() if not any(t.startswith("requires") for t in spec.traits)}
CASES = [(spec, option) for spec in ROWS.values() for option in optimizer_options(spec.name) if option not in TORCHS]

pytestmark = pytest.mark.filterwarnings("ignore:.*create_graph=True", "ignore:.*Sparse invariant checks")


def closure(optimizer: Any, params: list[torch.nn.Parameter]) -> torch.Tensor:
    optimizer.zero_grad()
    loss = torch.stack([(p**2).sum() for p in params]).sum()
    loss.backward(create_graph=bool(getattr(optimizer, "second_order", False)))
    return loss


@pytest.mark.parametrize("spec, option", CASES, ids=[f"{spec.name}-{option}" for spec, option in CASES])
def test_an_optimizers_option_is_refused_or_works(spec: Any, option: str) -> None:
    for value in VALUES:
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(shape)) for shape in ((6, 5), (3,), ())]
        try:
            optimizer: Any = create_optimizer(spec.name, params, **{"lr": 0.01, option: value})
        except REFUSED as error:
            assert option in str(error) or option in ("base", "betas", "lr", "momentum"), error
            continue

        for _ in range(2):
            optimizer.step(partial(closure, optimizer, params))
        assert all(torch.isfinite(p).all() for p in params), f"{option}={value!r}"


AROUND = (accepted(Schedule.__init__) | {"total", "per"}) - {"shape"}


@pytest.mark.parametrize("spec", registry("schedulers").specs(), ids=lambda spec: spec.name)
def test_a_schedules_option_is_refused_or_works(spec: Any) -> None:
    build = spec.load()
    for option in accepted(build) | (set() if isinstance(build, type) else AROUND):
        for value in VALUES:
            given = {"total": 10, "base": 0.1, "stable_timescale": 5, "updates_per_epoch": 2, option: value}
            if spec.name not in ("rsqrt", "wsd"):
                del given["stable_timescale"]
            try:
                schedule = create_scheduler(spec.name, **given)
            except REFUSED as error:
                assert option in str(error), error
                continue
            values = [schedule(i) for i in (*range(15), 1000)]
            assert all(math.isfinite(x) and x >= 0 for x in values), f"{option}={value!r}: {values}"


@pytest.mark.parametrize("options", [{"per": "epoch"}, {"per": "epoch", "updates_per_epoch": -1}])
def test_epochs_have_updates(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="updates_per_epoch"):
        create_scheduler("cosine", total=5, **options)


def test_groups_are_checked_as_options_are() -> None:
    param = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(UsageError, match="eps must be a finite number of at least 0"):
        create_optimizer("lion", [{"params": [param], "weight_decay": 0.1, "eps": -1.0}], lr=0.1)
    with pytest.raises(UsageError, match=r"betas is a list of 2 numbers, not \(0.9,\)"):
        create_optimizer("lion", [{"params": [param], "betas": (0.9,)}], lr=0.1)


def test_kron_gives_vectors_triangular_factors() -> None:
    param = torch.nn.Parameter(torch.randn(5, generator=torch.Generator().manual_seed(0)))
    optimizer = create_optimizer("kron", [param], lr=0.01, min_ndim_triangular=1)
    for i in range(3):
        param.grad = torch.randn(5, generator=torch.Generator().manual_seed(i))
        optimizer.step()
    (factor,) = optimizer.state[param]["Q"]
    assert factor.shape == (5, 5) and torch.equal(factor, factor.triu()) and param.isfinite().all()
