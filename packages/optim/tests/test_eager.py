"""torch's optimizers made here are torch's, but for the import of its compiler."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch

from imgzoo.registry import registry
from imgzoo_optim import create_optimizer

TORCH = [spec.name for spec in registry("optimizers").specs() if spec.target.startswith("imgzoo_optim.eager:")]
RUN = """
import sys, torch
from imgzoo_optim import create_optimizer
for name in sys.argv[1:]:
    model = torch.nn.Linear(3, 3)
    optimizer = create_optimizer(name, model, lr=0.1)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""


def trained(optimizer: torch.optim.Optimizer, model: torch.nn.Module, steps: int = 3) -> list[torch.Tensor]:
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.linspace(-1, 1, 12).view(4, 3) + step).square().sum().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_training_does_not_import_the_compiler() -> None:
    names = [*TORCH, "adamp", "muon", "lookahead_lamb", "adafactor"]
    done = subprocess.run([sys.executable, "-c", RUN, *names], capture_output=True, text=True)
    assert not done.returncode, done.stderr


@pytest.mark.parametrize("name", TORCH)
def test_steps_are_torchs(name: str) -> None:
    model = torch.nn.Linear(3, 2)
    other = copy.deepcopy(model)
    ours = create_optimizer(name, model, lr=0.05)
    base = getattr(torch.optim, type(ours).__name__)
    options = {key: value for key, value in ours.defaults.items() if key in base.__init__.__code__.co_varnames}
    theirs = base([{"params": [p]} for p in other.parameters()], **options)
    for mine, group in zip(ours.param_groups, theirs.param_groups):
        group["weight_decay"] = mine["weight_decay"]
    assert isinstance(ours, base)
    for a, b in zip(trained(ours, model), trained(theirs, other)):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_they_are_pickled_and_copied() -> None:
    optimizer = create_optimizer("adamw", torch.nn.Linear(3, 2), lr=0.05)
    for other in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        assert type(other) is type(optimizer) and other.defaults == optimizer.defaults


def test_hooks_and_closures_run() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = create_optimizer("sgd", model, lr=0.05)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(2, 3)).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad
    assert seen == ["pre", "post"]


def test_a_step_compiles() -> None:
    model = torch.nn.Linear(3, 2)
    other = copy.deepcopy(model)
    plain, compiled = create_optimizer("sgd", model, lr=0.05), create_optimizer("sgd", other, lr=0.05)
    compiled.step = torch.compile(compiled.step, backend="eager")
    for a, b in zip(trained(plain, model), trained(compiled, other)):
        torch.testing.assert_close(a, b)


def test_names_that_torch_lacks_are_no_attributes() -> None:
    from imgzoo_optim import eager

    for name in ("Adamant", "lr_scheduler"):
        with pytest.raises(AttributeError, match=name):
            getattr(eager, name)
