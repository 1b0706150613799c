"""Every optimizer walks on a GPU as on the CPU, and does not wait for it."""

import pytest
import torch

from imgzoo_optim import create_optimizer
from imgzoo_optim.table import optimizers

SPECS = [spec for spec in optimizers() if not any(trait.startswith("requires") for trait in spec.traits)]
PLAIN = [spec.name for spec in SPECS if "closure" not in spec.traits]
SHAPES = [(16, 8), (8, 4, 3, 3), (8,), ()]
DRAWN = ("adahessian", *(name for name in PLAIN if name.startswith("kron")))
"""Optimizers that draw random numbers on the device, which differ from the CPU's."""
WAITS = {
    "adahessian": "draws its signs on the host, so that every device gets the same",
    "kron": "decides by chance, drawn on the host, when to balance its factors",
}
"""Optimizers whose step waits, and why."""


def walk(name, device, steps=8, watch=None, dtype=torch.float32, **options):
    """Parameters after some steps along given gradients."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(device, dtype)) for shape in SHAPES]
    optimizer = create_optimizer(name, params, lr=1e-2, weight_decay=1e-2, **options)
    second = getattr(optimizer, "second_order", False)
    for step in range(steps):
        drawn = torch.Generator().manual_seed(step)
        for param in params:
            param.grad = torch.randn(param.shape, generator=drawn).to(device, dtype)
        if second:
            optimizer.zero_grad()
            torch.stack([(p**3).sum() for p in params]).sum().backward(create_graph=True)
        if watch is not None and step == steps - 1:
            watch(True)
        optimizer.step()
        if watch is not None:
            watch(False)
        if second:
            optimizer.zero_grad()
    return [param.detach().cpu().double() for param in params]


@pytest.mark.filterwarnings("ignore:.*create_graph=True")
@pytest.mark.parametrize("name", PLAIN)
def test_walk(device, name):
    if name in DRAWN:
        pytest.skip("it draws random numbers on the device, which differ from the CPU's")
    for found, truth in zip(walk(name, device), walk(name, "cpu"), strict=True):
        assert (found - truth).norm() <= 1e-3 * truth.norm() + 1e-6


@pytest.mark.filterwarnings("ignore:.*create_graph=True")
@pytest.mark.parametrize("name", PLAIN)
def test_nobody_waits(cuda, unwatched, name):
    if name in WAITS:
        pytest.skip(WAITS[name])
    walk(name, cuda, steps=12, watch=unwatched)


@pytest.mark.parametrize("name", ["sgd", "nesterov", "momentum", "adam", "adamw", "adagrad"])
def test_kernels_of_torch(cuda, name):
    """A GPU takes the fused kernel where torch has one and parameters are dense; the foreach one gives the same."""
    param = torch.nn.Parameter(torch.randn(8, 8, device=cuda))
    fused = create_optimizer(name, [param]).param_groups[0].get("fused")
    assert fused or name == "adagrad"  # torch has it for some devices only
    for found, truth in zip(walk(name, cuda, fused=False, foreach=True), walk(name, cuda), strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*create_graph=True")
@pytest.mark.parametrize("name", PLAIN)
def test_half_precision(cuda, name):
    assert all(torch.isfinite(tensor).all() for tensor in walk(name, cuda, dtype=torch.bfloat16))


def test_a_schedule_and_clipping_wait_for_nothing(device, unwatched):
    from imgzoo_optim import clip_gradients, create_scheduler

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 4)).to(device)
    optimizer = create_optimizer("adamw", model, lr=0.1)
    schedule = create_scheduler("cosine", optimizer, total=10, warmup=2)
    x = torch.randn(4, 8, device=device)
    model(x).sum().backward()
    optimizer.step()
    unwatched(True)
    for update in range(10):
        schedule.apply(optimizer, update)
        model(x).square().sum().backward()
        for mode in ("norm", "value", "agc"):
            clip_gradients(model, 1.0, mode=mode)
        optimizer.step()
        optimizer.zero_grad()
