"""What imgzoo asks of an optimizer and of a schedule, as checks of the conformance kit (`imgzoo.testing`)."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from imgzoo_optim import create_optimizer, create_scheduler

UPDATES = 20


def _problem(subject: Any) -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], None]]:
    """Two layers to fit, an optimizer over them, and one update."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    x, y = torch.randn(32, 6), torch.randn(32, 4)
    optimizer = create_optimizer(subject.name, model, lr=1e-2, weight_decay=1e-2, **subject.options)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        with warnings.catch_warnings():  # of a cycle through the gradients, which end with this problem
            warnings.filterwarnings("ignore", "Using backward.* with create_graph=True", UserWarning)
            loss.backward(create_graph="second-order" in subject.spec.traits)
        return loss

    def step() -> None:
        if "closure" in subject.spec.traits:
            optimizer.step(closure)  # type: ignore[call-overload]
        else:
            closure()
            optimizer.step()

    return model, optimizer, step


def updates_every_parameter(subject: Any) -> None:
    """`target(params, lr=..., weight_decay=...)` is an optimizer whose steps move whatever has a gradient."""
    model, _, step = _problem(subject)
    before = copy.deepcopy(model.state_dict())
    for _ in range(3):
        step()
    for name, value in model.state_dict().items():
        if torch.equal(value, before[name]):
            raise AssertionError(f"three steps leave '{name}' as it was")
        if not torch.isfinite(value).all():
            raise AssertionError(f"after three steps '{name}' is not finite")


def follows_the_learning_rate(subject: Any) -> None:
    """`lr` of a group, as schedules set it, decides how far a step goes: at 0 nowhere."""
    moved = []
    for factor in (1, 0):
        model, optimizer, step = _problem(subject)
        before = copy.deepcopy(model.state_dict())
        for group in optimizer.param_groups:
            if "lr" not in group:
                raise AssertionError("its parameter groups have no 'lr'")
            group["lr"], group["weight_decay"] = group["lr"] * factor, 0.0
        step()
        moved.append(sum((value - before[name]).norm().item() for name, value in model.state_dict().items()))
    if moved[1] > 0.01 * moved[0]:
        raise AssertionError(f"with learning rate 0 a step goes {moved[1] / moved[0]:.2g} times as far as with 0.01")
    _, optimizer, step = _problem(subject)
    groups = [(group["params"], copy.deepcopy(group["params"])) for group in optimizer.param_groups]
    optimizer.param_groups[-1]["lr"] = 0.0
    step()
    gone = [sum((now - then).norm().item() for now, then in zip(*group)) for group in groups]
    if len(gone) > 1 and gone[-1] > 0.01 * gone[0]:
        raise AssertionError("a group whose learning rate is 0 goes with the others")


def follows_the_weight_decay(subject: Any) -> None:
    """`weight_decay` of a group has an effect."""
    ends = []
    for decay in (0.0, 0.9):
        model, optimizer, step = _problem(subject)
        for group in optimizer.param_groups:
            group["weight_decay"] = decay
        for _ in range(3):
            step()
        ends.append(model.state_dict())
    if all(torch.equal(value, ends[1][name]) for name, value in ends[0].items()):
        raise AssertionError("weight_decay 0 and 0.9 lead to the same weights")


def leaves_the_gradients(subject: Any) -> None:
    """A step changes no gradient: clipping, loggers and the next accumulation read them."""
    model, optimizer, step = _problem(subject)
    if "closure" in subject.spec.traits:
        return  # it makes them itself, as often as it likes
    grads: dict[str, torch.Tensor] = {}

    def keep(*_: Any) -> None:
        grads.update((name, p.grad.detach().clone()) for name, p in model.named_parameters() if p.grad is not None)

    optimizer.register_step_pre_hook(keep)
    step()
    for name, param in model.named_parameters():
        if name in grads and (param.grad is None or not torch.equal(param.grad, grads[name])):
            raise AssertionError(f"a step changes the gradient of '{name}'")


def state_can_be_resumed(subject: Any) -> None:
    """Loaded from `state_dict`, another optimizer goes on as the first one does, bit for bit."""
    model, optimizer, step = _problem(subject)
    for _ in range(3):
        step()
    again, other, step_again = _problem(subject)
    again.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(2):
        step()
        step_again()
    for name, value in model.state_dict().items():
        if not torch.equal(again.state_dict()[name], value):
            raise AssertionError(f"resumed from its state, '{name}' goes another way")


def _schedule(subject: Any, base: float = 0.1) -> Any:
    return create_scheduler(subject.name, total=UPDATES, warmup=3, base=base, **subject.options)


def gives_rates(subject: Any) -> None:
    """`schedule(update)` goes by its base, and is finite and at least 0 for every update, the same each time."""
    schedule = _schedule(subject)
    for update in range(UPDATES + 5):
        value = schedule(update)
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise AssertionError(f"at update {update} it gives {value!r}, and no learning rate")
        if schedule(update) != value:
            raise AssertionError(f"asked twice for update {update} it gives two values")
    other = _schedule(subject, base=0.2)
    if all(schedule(update) == other(update) for update in range(4, UPDATES)):
        raise AssertionError("it gives the same for a base of 0.1 and of 0.2")


def sets_the_groups(subject: Any) -> None:
    """`apply(optimizer, update)` gives every group the value of its own base, times its `lr_scale`."""
    schedule = _schedule(subject)
    groups: list[dict[str, Any]] = [{"params": [nn.Parameter(torch.ones(1))], "lr_scale": scale} for scale in (1, 0.5)]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    for update in range(UPDATES):
        schedule.apply(optimizer, update)
        wanted = schedule(update)
        for group in optimizer.param_groups:
            if not math.isclose(group["lr"], wanted * group["lr_scale"], abs_tol=1e-12):
                raise AssertionError(f"at update {update} a group has {group['lr']}, not {wanted * group['lr_scale']}")


OPTIMIZER = (updates_every_parameter, follows_the_learning_rate, follows_the_weight_decay, leaves_the_gradients,
             state_can_be_resumed)  # fmt: skip
SCHEDULER = (gives_rates, sets_the_groups)
