"""Facts about schedules: shapes, warm-up, purity, fields, the plateau's memory, the command."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from imgzoo.errors import OptionError, UnknownNameError, UsageError
from imgzoo_optim import create_optimizer, create_scheduler
from imgzoo_optim.cli.schedule import command

FALLING = ["cosine", "tanh", "poly", "wsd"]


def optimizer(lr: float = 0.1) -> torch.optim.Optimizer:
    return create_optimizer("momentum", [torch.nn.Parameter(torch.zeros(1))], lr=lr)


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(FALLING),
    total=st.integers(20, 400),
    share=st.floats(0, 0.3),
    floor=st.floats(0, 0.01),
)
def test_peak_is_the_base_and_the_end_is_the_minimum(name: str, total: int, share: float, floor: float) -> None:
    warmup = int(total * share)
    schedule = create_scheduler(name, total=total, warmup=warmup, base=0.1, min_lr=floor, warmup_prefix=True)
    values = [schedule(i) for i in range(schedule.length + 1)]
    assert max(values) == pytest.approx(0.1, rel=1e-4) and values[-1] == pytest.approx(floor, abs=1e-12)
    assert values[warmup] == max(values)


OPTIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "cosine": st.fixed_dictionaries({"cycle_decay": st.floats(0.1, 1), "k_decay": st.floats(0.5, 2)}),
    "tanh": st.fixed_dictionaries({"cycle_limit": st.integers(1, 3), "cycle_decay": st.floats(0.1, 1)}),
    "poly": st.fixed_dictionaries({"power": st.floats(0.1, 3), "cycle_mul": st.floats(1, 2)}),
    "wsd": st.fixed_dictionaries(
        {
            "stable": st.sampled_from(["constant", "rsqrt", "power"]),
            "stable_timescale": st.floats(0.5, 50),
            "stable_power": st.floats(0, 4),
            "decay": st.one_of(st.floats(0.05, 1), st.floats(1.5, 15)),
            "decay_fn": st.sampled_from(["linear", "1-sqrt", "cosine", "power", "exp"]),
            "decay_power": st.floats(0.1, 3),
            "decay_ratio": st.floats(0.01, 0.99),
        }
    ),
}


@settings(deadline=None, max_examples=200)
@given(data=st.data(), name=st.sampled_from(sorted(OPTIONS)), floor=st.floats(0, 0.2), warmup=st.integers(0, 5))
def test_every_value_lies_between_the_floor_and_the_base(data: st.DataObject, name: str, floor: float, warmup: int):
    """A base below the floor stays where it is; the end is the floor."""
    options = data.draw(OPTIONS[name])
    schedule = create_scheduler(name, total=30, warmup=warmup, warmup_prefix=True, base=0.1, min_lr=floor, **options)
    values = [schedule(i) for i in range(warmup, schedule.length + 2)]
    assert all(min(floor, 0.1) - 1e-12 <= value <= 0.1 + 1e-12 for value in values)
    assert values[-1] == pytest.approx(min(floor, 0.1))


@settings(deadline=None, max_examples=40)
@given(name=st.sampled_from(["cosine", "tanh"]), total=st.integers(50, 400), warmup=st.integers(0, 20))
def test_smooth_schedules_are_continuous(name: str, total: int, warmup: int) -> None:
    schedule = create_scheduler(name, total=total, warmup=warmup, warmup_prefix=True)
    values = [schedule(i) for i in range(schedule.length + 1)]
    after = [abs(a - b) for a, b in itertools.pairwise(values[warmup:])]
    assert max(after) < 8 / total
    assert all(abs(a - b) <= 1 / max(1, warmup) + 1e-9 for a, b in itertools.pairwise(values[:warmup]))


@settings(deadline=None, max_examples=20)
@given(name=st.sampled_from(FALLING), accumulate=st.integers(1, 8))
def test_accumulation_changes_nothing(name: str, accumulate: int) -> None:
    schedule = create_scheduler(name, total=40, warmup=4)
    plain = [schedule(update) for update in range(40)]
    by_batch = [schedule(batch // accumulate) for batch in range(40 * accumulate)]
    assert by_batch[::accumulate] == plain


@pytest.mark.parametrize("name", [*FALLING, "step", "multistep", "constant", "rsqrt"])
def test_schedules_are_pure(name: str) -> None:
    schedule = create_scheduler(name, total=50, warmup=5, noise=(0.2, 0.9))
    ahead = [schedule(i) for i in range(50)]
    assert [schedule(i) for i in reversed(range(50))] == ahead[::-1]
    assert ahead != [create_scheduler(name, total=50, warmup=5)(i) for i in range(50)]


def test_epochs_hold_their_value() -> None:
    schedule = create_scheduler("step", total=6, decay_every=2, per="epoch", updates_per_epoch=3)
    assert [schedule(i) for i in (0, 5, 6, 11, 12)] == pytest.approx([1, 1, 0.1, 0.1, 0.01]) and schedule.length == 18


def test_restarts_start_lower_and_last_longer() -> None:
    schedule = create_scheduler("cosine", total=10, cycle_mul=2, cycle_decay=0.5, cycle_limit=2)
    assert schedule(0) == 1 and schedule(10) == 0.5 and schedule(20) == pytest.approx(0.25) and schedule(30) == 0


def test_apply_scales_each_group_and_any_field() -> None:
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    made = create_optimizer("momentum", [{"params": [params[0]], "lr_scale": 0.5}, {"params": [params[1]]}], lr=0.1)
    create_scheduler("poly", made, total=10, power=1).apply(made, 5)
    assert [group["lr"] for group in made.param_groups] == pytest.approx([0.025, 0.05])
    create_scheduler("poly", made, total=10, power=1, field="momentum").apply(made, 5)
    assert made.param_groups[1]["momentum"] == pytest.approx(0.45)


def test_tensor_rates_are_filled_in_place() -> None:
    lr = torch.tensor(0.1)
    made = create_optimizer("sgdw", [torch.nn.Parameter(torch.zeros(1))], lr=lr)
    create_scheduler("constant", made, total=10, warmup=10).apply(made, 5)
    assert made.param_groups[0]["lr"] is lr and lr.item() == pytest.approx(0.05)


def test_plateau_falls_when_the_metric_stalls_and_remembers() -> None:
    made = optimizer()
    schedule = create_scheduler("plateau", made, total=20, patience=1, decay_rate=0.5)
    for i, metric in enumerate([0.1, 0.2, 0.2, 0.2, 0.3]):
        schedule.apply(made, i, metric)
    assert made.param_groups[0]["lr"] == pytest.approx(0.05)
    other = create_scheduler("plateau", made, total=20, patience=1, decay_rate=0.5)
    other.load_state_dict(schedule.state_dict())
    assert other(5) == schedule(5) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: create_scheduler("cosin", total=5), UnknownNameError, "cosine"),
        (lambda: create_scheduler("cosine", total=5, powr=1), OptionError, "min_lr"),
        (lambda: create_scheduler("cosine", total=0), UsageError, "total"),
        (lambda: create_scheduler("rsqrt", total=5), UsageError, "stable_timescale"),
        (lambda: create_scheduler("wsd", total=5, decay=9), UsageError, "longer"),
        (lambda: create_scheduler("multistep", total=5, milestones=[3, 1]), UsageError, "rise"),
        (lambda: create_scheduler("cosine", total=5, per="epoch"), UsageError, "updates_per_epoch"),
        (lambda: create_scheduler("wsd", total=5, decay=0), UsageError, "decay must be above 0"),
        (lambda: create_scheduler("wsd", total=5, decay=-5), UsageError, "decay must be above 0"),
        (lambda: create_scheduler("wsd", total=5, decay=float("nan")), UsageError, "decay is a number, not nan"),
        (lambda: create_scheduler("wsd", total=5, decay_fn="power", decay_power=0), UsageError, "decay_power"),
        (lambda: create_scheduler("wsd", total=5, stable="power", stable_power=-1), UsageError, "stable_power"),
        (lambda: create_scheduler("wsd", total=5, decay_fn="exp", decay_ratio=1.0), UsageError, "between 0 and 1"),
        (lambda: create_scheduler("wsd", total=5, decay_fn="exp", decay_ratio=0.0), UsageError, "between 0 and 1"),
        (lambda: create_scheduler("wsd", total=5, decay_fn=lambda x: 2 - x), UsageError, "share left"),
        (lambda: create_scheduler("poly", total=5, power=0), UsageError, "power"),
        (lambda: create_scheduler("cosine", total=5, min_lr=float("inf")), UsageError, "min_lr"),
    ],
)
def test_bad_input_is_one_typed_sentence(call, error, says) -> None:
    with pytest.raises(error, match=says):
        call()


def test_the_command_draws_and_lists() -> None:
    drawn = CliRunner().invoke(command, ["cosine", "--total", "40", "--plot"])
    assert drawn.exit_code == 0 and "█" in drawn.output
    listed = CliRunner().invoke(command, ["wsd", "decay=0.5", "--total", "10", "--json"])
    assert json.loads(listed.output)["values"][0] == 1 and json.loads(listed.output)["values"][-1] == 0
