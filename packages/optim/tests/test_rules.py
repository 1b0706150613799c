"""Facts about every registered optimizer: the published rule, state, precision, decay, compiled loops."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from imgzoo.errors import CapabilityError, UnknownNameError, UsageError
from imgzoo.registry import registry
from imgzoo_optim import create_optimizer, kernels
from imgzoo_optim.base import Optimizer
from imgzoo_optim.table import optimizers

ROWS = {spec.name: spec for spec in optimizers()}
HERE = [name for name, spec in ROWS.items() if not any(t.startswith("requires") for t in spec.traits)]
PLAIN = [name for name in HERE if "closure" not in ROWS[name].traits]
OURS = [name for name in PLAIN if ROWS[name].target.startswith("imgzoo_optim.rules")]


def tensors(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 20), (6, 4, 3, 3), (40,), ()]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def train(optimizer: Any, params: list[torch.nn.Parameter], steps: int, start: int = 0) -> None:
    """Steps on a badly scaled quadratic whose target moves."""
    second = getattr(optimizer, "second_order", False)
    for i in range(start, start + steps):
        generator = torch.Generator().manual_seed(i)
        optimizer.zero_grad()
        loss = torch.zeros(())
        for param in params:
            weight = torch.logspace(-2, 0, max(1, param.numel())).view(param.shape)
            target = torch.randn(param.shape, generator=generator) * 0.1
            loss = loss + (weight * (param.float() - target) ** 2).sum()
        loss.backward(create_graph=second)
        optimizer.step()


pytestmark = pytest.mark.filterwarnings("ignore:.*create_graph=True", "ignore:.*Sparse invariant checks")


@pytest.mark.parametrize("name", PLAIN)
def test_state_dict_round_trip_keeps_training_bit_equal(name: str) -> None:
    first, second = tensors(), tensors()
    one = create_optimizer(name, first, lr=1e-2, weight_decay=1e-2)
    torch.manual_seed(0)
    train(one, first, 3)
    other = create_optimizer(name, second, lr=1e-2, weight_decay=1e-2)
    for a, b in zip(first, second):
        b.data.copy_(a)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    torch.manual_seed(1)
    train(one, first, 3, 3)
    torch.manual_seed(1)
    train(other, second, 3, 3)
    for a, b in zip(first, second):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", OURS)
def test_low_precision_parameters_keep_float32_state(name: str) -> None:
    params = tensors(torch.bfloat16)
    optimizer = create_optimizer(name, params, lr=1e-2, weight_decay=1e-2)
    train(optimizer, params, 2)
    optimizer.load_state_dict(optimizer.state_dict())
    for param in params:
        assert param.dtype == torch.bfloat16 and torch.isfinite(param).all()
        for key, value in optimizer.state[param].items():
            if isinstance(value, torch.Tensor) and not (key == "exp_avg" and "factorbv" in name):
                assert value.dtype in (torch.float32, torch.float64), key


@pytest.mark.parametrize("name", OURS)
def test_a_step_rounds_low_precision_once(name: str) -> None:
    """Decay and step together land on the bfloat16 number next to where float32 lands."""
    ends = []
    for dtype in (torch.bfloat16, torch.float32):
        params = [torch.nn.Parameter(p.detach().bfloat16().to(dtype)) for p in tensors()]
        optimizer = create_optimizer(name, params, lr=1e-2, weight_decay=0.3)
        torch.manual_seed(0)
        for param in params:
            param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(2)).bfloat16().to(dtype)
        if getattr(optimizer, "second_order", False):
            optimizer.zero_grad()
            torch.stack([(p * p).sum() for p in params]).sum().backward(create_graph=True)
        optimizer.step()
        ends.append([p.detach().float() for p in params])
    for low, full in zip(*ends):
        assert (low == full.bfloat16().float()).float().mean() > 0.97


@pytest.mark.parametrize("name", PLAIN)
def test_steps_go_downhill(name: str) -> None:
    params = tensors()
    before = [param.detach().norm().item() for param in params]
    optimizer = create_optimizer(name, params, lr=1e-2 if name not in ("lars", "larc", "nlars", "nlarc") else 0.1)
    train(optimizer, params, 30)
    after = [param.detach().norm().item() for param in params]
    assert after[0] < before[0] or name in ("adadelta",)
    assert all(math.isfinite(value) for value in after)


LOOPS = [name for name in OURS if registry("optimizers").resolve(name).load().kernel is not None]


@pytest.mark.skipif(kernels.compiled(kernels.Kernel((), (), "u = g;"), True) is None, reason="needs a C compiler")
@pytest.mark.parametrize("name", LOOPS)
def test_compiled_loop_equals_tensor_operations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(loops: bool) -> list[torch.nn.Parameter]:
        params = tensors()
        optimizer = create_optimizer(name, params, lr=1e-2, weight_decay=1e-2)
        if not loops:
            monkeypatch.setattr(type(optimizer), "kernel", None)
        train(optimizer, params, 8)
        return params

    for a, b in zip(run(True), run(False)):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.skipif(kernels.library("int one = 1;") is None, reason="needs a C compiler")
@pytest.mark.parametrize("lr", [1e-2, None])
@pytest.mark.parametrize("shape", [(17, 19), (40, 131, 3, 3), (18, 600), (33, 20, 5), (2, 3), (4, 4, 30, 40), (64,)])
def test_compiled_adafactor_equals_tensor_operations(
    shape: tuple[int, ...], lr: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> torch.nn.Parameter:
        torch.manual_seed(0)
        param = torch.nn.Parameter(torch.randn(*shape) * torch.rand(shape[-1:]))
        optimizer = create_optimizer("adafactor", [param], lr=lr, weight_decay=1e-2, min_dim_size_to_factor=1)
        for _ in range(5):
            param.grad = torch.randn_like(param) * param.detach().abs().sqrt()
            optimizer.step()
        return param

    compiled = run()
    monkeypatch.setattr("imgzoo_optim.rules.adafactor.compiled_step", lambda: None)
    torch.testing.assert_close(compiled, run(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OURS)
def test_large_tensors_step_as_small_blocks_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(limit: int) -> list[torch.nn.Parameter]:
        monkeypatch.setitem(__import__("imgzoo_optim.base").base.BLOCK, "cpu", limit)
        monkeypatch.setenv("IMGZOO_KERNELS", "0")
        params = tensors(torch.float64)
        torch.manual_seed(0)
        train(create_optimizer(name, params, lr=1e-2, weight_decay=1e-2), params, 4)
        return params

    for a, b in zip(run(1 << 18), run(64)):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def adamw(p: Any, g: Any, s: dict, t: int) -> Any:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g * g
    return p * (1 - 1e-4) - 0.01 * (s["m"] / (1 - 0.9**t)) / ((s["v"] / (1 - 0.999**t)).sqrt() + 1e-8)


def lion(p: Any, g: Any, s: dict, t: int) -> Any:
    m = s.get("m", 0 * g)
    s["m"] = 0.99 * m + 0.01 * g
    return p * (1 - 1e-4) - 0.01 * torch.sign(0.9 * m + 0.1 * g)


def adan(p: Any, g: Any, s: dict, t: int) -> Any:
    d = g - s.get("g", g)
    s["g"] = g
    s["m"] = 0.98 * s.get("m", 0) + 0.02 * g
    s["d"] = 0.92 * s.get("d", 0) + 0.08 * d
    s["n"] = 0.99 * s.get("n", 0) + 0.01 * (g + 0.92 * d) ** 2
    top = s["m"] / (1 - 0.98**t) + 0.92 * s["d"] / (1 - 0.92**t)
    return (p - 0.01 * top / ((s["n"] / (1 - 0.99**t)).sqrt() + 1e-8)) / (1 + 1e-4)


def adabelief(p: Any, g: Any, s: dict, t: int) -> Any:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * (g - s["m"]) ** 2 + 1e-16
    return p * (1 - 1e-4) - 0.01 * (s["m"] / (1 - 0.9**t)) / ((s["v"] / (1 - 0.999**t)).sqrt() + 1e-16)


def laprop(p: Any, g: Any, s: dict, t: int) -> Any:
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g * g
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * 0.01 * g / ((s["v"] / (1 - 0.999**t)).sqrt() + 1e-15)
    return (p - s["m"] / (1 - 0.9**t)) * (1 - 1e-4)


def adopt(p: Any, g: Any, s: dict, t: int) -> Any:
    g = g + 0.01 * p
    if t == 1:
        s["v"] = g * g
        return p
    limit = (t - 1) ** 0.333
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * (g / s["v"].sqrt().clamp(min=1e-6)).clamp(-limit, limit)
    s["v"] = 0.9999 * s["v"] + 0.0001 * g * g
    return p - 0.01 * s["m"]


def madgrad(p: Any, g: Any, s: dict, t: int) -> Any:
    g = g + 0.01 * p
    start = s.setdefault("x", p)
    s["s"] = s.get("s", 0) + (0.01 + 1e-6) * t**0.5 * g
    s["v"] = s.get("v", 0) + (0.01 + 1e-6) * t**0.5 * g * g
    return 0.9 * p + 0.1 * (start - s["s"] / (s["v"] ** (1 / 3) + 1e-6))


def rmsproptf(p: Any, g: Any, s: dict, t: int) -> Any:
    g = g + 0.01 * p
    s["v"] = 0.9 * s.get("v", 1) + 0.1 * g * g
    s["b"] = 0.9 * s.get("b", 0) + 0.01 * g / (s["v"] + 1e-10).sqrt()
    return p - s["b"]


def novograd(p: Any, g: Any, s: dict, t: int) -> Any:
    square = (g * g).sum()
    s["v"] = square if t == 1 else 0.98 * s["v"] + 0.02 * square
    s["m"] = 0.95 * s.get("m", 0) + g / (s["v"].sqrt() + 1e-8) + 0.01 * p
    return p - 0.01 * s["m"]


def lamb(p: Any, g: Any, s: dict, t: int) -> Any:
    g = g / max(1.0, g.norm().item())
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g * g
    u = (s["m"] / (1 - 0.9**t)) / ((s["v"] / (1 - 0.999**t)).sqrt() + 1e-6) + 0.01 * p
    return p - 0.01 * p.norm() / u.norm() * u


def lars(p: Any, g: Any, s: dict, t: int) -> Any:
    trust = 0.001 * p.norm() / (g.norm() + 0.01 * p.norm() + 1e-8)
    s["b"] = 0.9 * s.get("b", 0) + trust * (g + 0.01 * p)
    return p - 0.01 * s["b"]


def cadamw(p: Any, g: Any, s: dict, t: int) -> Any:
    u = -(adamw(p, g, s, t) - p * (1 - 1e-4)) / 0.01
    mask = (u * g > 0).double()
    return p * (1 - 1e-4) - 0.01 * u * mask / mask.mean().clamp(min=1e-3)


def mars(p: Any, g: Any, s: dict, t: int) -> Any:
    c = g + 0.025 * 0.9 / 0.1 * (g - s.get("g", g))
    s["g"] = g
    c = c / max(1.0, c.norm().item())
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * c
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * c * c
    return p - 0.01 * ((s["m"] / (1 - 0.9**t)) / ((s["v"] / (1 - 0.99**t)).sqrt() + 1e-8) + 0.01 * p)


def muon(p: Any, g: Any, s: dict, t: int) -> Any:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    x = s["m"].T / s["m"].norm()
    for a, b, c in ((4.0848, -6.8946, 2.927), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
                    (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)):  # fmt: skip
        x = a * x + (b * x @ x.T + c * x @ x.T @ x @ x.T) @ x
    return p * (1 - 1e-4) - 0.01 * 0.2 * 6**0.5 * x.T


PUBLISHED = {
    f.__name__: f
    for f in (adamw, lion, adan, adabelief, laprop, adopt, madgrad, rmsproptf, novograd, lamb, lars, cadamw, mars, muon)
}
PUBLISHED["adamwlegacy"] = PUBLISHED.pop("adamw")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_rule(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    param = torch.nn.Parameter(torch.randn(6, 5, generator=generator, dtype=torch.float64))
    expected, state = param.detach().clone(), {}
    optimizer = create_optimizer(name, [param], lr=0.01, weight_decay=0.01)
    for t in range(1, 12):
        param.grad = torch.randn(6, 5, generator=generator, dtype=torch.float64)
        expected = PUBLISHED[name](expected, param.grad.clone(), state, t)
        optimizer.step()
        torch.testing.assert_close(param.detach(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_muon_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    from imgzoo_optim.rules.muon import PRESETS, orthogonalize

    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(x, PRESETS["quintic"]))
    assert values.min() > 0.6 and values.max() < 1.3
    exact = orthogonalize(x.double(), PRESETS["quintic"])
    torch.testing.assert_close(orthogonalize(x, PRESETS["quintic"]).double(), exact, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", ["muon", "adamuon"])
def test_muon_divides_by_the_root_of_what_goes_in(name: str) -> None:
    def moved(shape: tuple[int, ...], rate: str) -> torch.Tensor:
        param = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        param.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        create_optimizer(name, [param], lr=1.0, adjust_lr_fn=rate).step()
        return param.detach()

    for shape, inputs in (((8, 4), 4), ((4, 8), 8), ((8, 4, 3, 3), 36)):
        torch.testing.assert_close(moved(shape, "rsqrt_in"), moved(shape, "none") * inputs**-0.5)
    with pytest.raises(UsageError, match="adjust_lr_fn is"):
        moved((8, 4), "rsqrt_out")


def test_projected_steps_leave_the_norm_of_scale_invariant_weights() -> None:
    param = torch.nn.Parameter(torch.randn(8, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    optimizer = create_optimizer("adamp", [param], lr=1e-3)
    for i in range(5):
        grad = torch.randn(8, 9, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        with torch.no_grad():
            grad -= param * (grad * param).sum(1, keepdim=True) / (param * param).sum(1, keepdim=True)
        before, param.grad = param.detach().clone(), grad
        optimizer.step()
        radial = ((param.detach() - before) * before).sum(1)
        assert radial.abs().max() < 1e-9


def projected(x: Any, p: Any, g: Any) -> tuple[Any, bool]:
    """2006.08217, equation 11, by channel or else by layer: without the radial part where the cosine is small."""
    for rows in (p, p.reshape(1, -1)):
        gradient, step = g.reshape(rows.shape), x.reshape(rows.shape)
        cosine = torch.nn.functional.cosine_similarity(gradient, rows, eps=1e-8).abs().max()
        if cosine < 0.1 / rows.shape[1] ** 0.5:
            unit = rows / (rows.norm(dim=1, keepdim=True) + 1e-8)
            return (step - unit * (unit * step).sum(1, keepdim=True)).reshape(x.shape), True
    return x, False


@pytest.mark.parametrize("name", ["adamp", "sgdp", "cadamp", "csgdp"])
def test_published_projection(name: str) -> None:
    """On gradients that are tangent to all channels, to the layer alone, or to nothing."""
    generator = torch.Generator().manual_seed(0)
    param = torch.nn.Parameter(torch.randn(6, 5, generator=generator, dtype=torch.float64))
    p, m, v, seen = param.detach().clone(), 0.0, 0.0, set()
    optimizer = create_optimizer(name, [param], lr=0.01, weight_decay=0.01)
    for t in range(1, 13):
        g = torch.randn(6, 5, generator=generator, dtype=torch.float64)
        if t % 3 == 0:
            g -= p * (g * p).sum(1, keepdim=True) / (p * p).sum(1, keepdim=True)
        if t % 3 == 1:
            g -= p * (g * p).sum() / (p * p).sum()
        param.grad = g.clone()
        optimizer.step()
        if "sgd" in name:
            m = 0.9 * m + g
            u, strength = g + 0.9 * m, 0.01 / (1 - 0.9)
        else:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            ahead = 0.9 * m + 0.1 * g
            u, strength = (ahead / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8), 0.01
        u, tangent = projected(u, p, g)
        if name.startswith("c"):
            mask = (u * projected(g, p, g)[0] > 0).double()
            u, _ = projected(u * mask / mask.mean().clamp(min=1e-3), p, g)
        seen.add(tangent)
        p = p * (1 - strength * 0.01 * ((0.1 if "sgd" in name else 0.01) if tangent else 1.0)) - 0.01 * u
        torch.testing.assert_close(param.detach(), p, rtol=1e-9, atol=1e-11)
    assert seen == {True, False}


@pytest.mark.parametrize("name", ["schedulefreesgd", "schedulefreeadamw"])
def test_schedule_free_average_is_the_mean_of_the_fast_iterates(name: str) -> None:
    param = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = create_optimizer(name, [param], lr=0.1)
    fast = []
    for i in range(6):
        param.grad = torch.tensor([1.0, -2.0, float(i)], dtype=torch.float64)
        optimizer.step()
        fast.append(optimizer.state[param]["z"].clone())
    optimizer.eval()
    torch.testing.assert_close(param.detach(), torch.stack(fast).mean(0))
    with pytest.raises(UsageError, match="train"):
        optimizer.step()
    optimizer.train()
    torch.testing.assert_close(param.detach(), 0.9 * torch.stack(fast).mean(0) + 0.1 * fast[-1])


def test_sam_steps_with_the_gradient_of_the_worst_point_nearby() -> None:
    param = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = create_optimizer("sam", [param], lr=0.1, base="momentum", rho=0.5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (param**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 25
    torch.testing.assert_close(param.detach(), torch.tensor([3.0, 4.0]) - 0.1 * 2 * torch.tensor([3.3, 4.4]))
    with pytest.raises(UsageError, match="closure"):
        optimizer.step()


def test_lookahead_pulls_the_weights_back_every_k_steps() -> None:
    param = torch.nn.Parameter(torch.zeros(1))
    optimizer = create_optimizer(
        "lookahead_momentum", [param], lr=1.0, momentum=0.0, lookahead_k=2, lookahead_alpha=0.5
    )
    seen = []
    for _ in range(4):
        param.grad = -torch.ones(1)
        optimizer.step()
        seen.append(param.item())
    assert seen == [1.0, 2.0, 3.0, 3.0]


def test_a_group_that_joins_lookahead_later_counts_its_own_steps() -> None:
    early, late = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = create_optimizer("lookahead_momentum", [early], lr=1.0, momentum=0.0, lookahead_k=4)
    seen = []
    for t in range(9):
        if t == 2:
            optimizer.add_param_group({"params": [late], "lookahead_k": 3})
        for param in (early, late):
            param.grad = -torch.ones(1)
        optimizer.step()
        seen.append((early.item(), late.item()))
    assert [first for first, _ in seen] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 6.0, 7.0]
    assert [second for _, second in seen] == [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 4.5, 5.5]


def test_lookahead_leaves_frozen_parameters() -> None:
    param, other = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = create_optimizer("lookahead_momentum", [param, other], lr=1.0, momentum=0.0, lookahead_k=2)
    for t in range(8):
        if t == 3:
            param.requires_grad_(False)
        param.grad = -torch.ones(1) if param.requires_grad else None
        other.grad = -torch.ones(1)
        optimizer.step()
    assert param.item() == 3.0


def test_lookahead_reads_states_that_lack_its_counts() -> None:
    param = torch.nn.Parameter(torch.zeros(1))
    optimizer = create_optimizer("lookahead_momentum", [param], lr=1.0)
    state = create_optimizer("momentum", [param], lr=1.0).state_dict()
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lookahead_step"] == 0
    optimizer.load_state_dict({**state, "wrapper": {"alpha": 0.25, "k": 3, "count": 5}})
    group = optimizer.param_groups[0]
    assert (group["lookahead_alpha"], group["lookahead_k"], group["lookahead_step"]) == (0.25, 3, 5)


@pytest.mark.parametrize("name", ["adamwlegacy", "nadamw", "lion", "adan", "sgdw", "laprop", "adabelief", "madgrad"])
def test_tensor_learning_rates_act_as_numbers(name: str) -> None:
    first, second = tensors(), tensors()
    train(create_optimizer(name, first, lr=torch.tensor(0.01)), first, 3)
    train(create_optimizer(name, second, lr=0.01), second, 3)
    for a, b in zip(first, second):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["adamwlegacy", "lion", "sgdw", "lamb"])
def test_complex_parameters_step_as_pairs_of_reals(name: str) -> None:
    values = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    pair = torch.nn.Parameter(values.clone())
    single = torch.nn.Parameter(torch.view_as_complex(values.clone()))
    for param in (pair, single):
        optimizer = create_optimizer(name, [param], lr=0.01, weight_decay=0.1)
        param.grad = torch.ones_like(param) if param is pair else torch.ones(5) * torch.tensor(1 + 1j)
        optimizer.step()
    torch.testing.assert_close(torch.view_as_real(single.detach()), pair.detach())


@pytest.mark.parametrize("name", ["muon", "adamp", "kron", "adafactor"])
def test_complex_parameters_are_refused_where_they_mean_nothing(name: str) -> None:
    with pytest.raises(CapabilityError, match="complex"):
        create_optimizer(name, [torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.complex64))], lr=0.1)


@pytest.mark.parametrize("name", ["sgd", "adagrad"])
def test_sparse_gradients_are_taken_where_torch_takes_them(name: str) -> None:
    table = torch.nn.Embedding(5, 3, sparse=True)
    momentum = {"momentum": 0.0, "nesterov": False} if name == "sgd" else {}
    optimizer = create_optimizer(name, table.parameters(), lr=0.1, **momentum)
    before = table.weight.detach().clone()
    table(torch.tensor([1])).sum().backward()
    optimizer.step()
    assert (table.weight != before).any(1).tolist() == [False, True, False, False, False]


def test_sparse_gradients_are_refused_elsewhere() -> None:
    table = torch.nn.Embedding(5, 3, sparse=True)
    optimizer = create_optimizer("lion", table.parameters(), lr=0.1)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(CapabilityError, match="sparse"):
        optimizer.step()


@pytest.mark.parametrize("name", ["adamwlegacy", "lion", "adamw", "adan", "muon", "schedulefreeadamw"])
def test_rosenbrock_is_solved(name: str) -> None:
    point = torch.nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))
    optimizer = create_optimizer(name, [point], lr=0.02 if name != "lion" else 0.002)

    def value() -> torch.Tensor:
        return (1 - point[0]) ** 2 + 100 * (point[1] - point[0] ** 2) ** 2

    for _ in range(2500):
        optimizer.zero_grad()
        value().backward()
        optimizer.step()
    assert value().item() < 0.1


def test_closures_are_run_once_and_their_loss_returned() -> None:
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = create_optimizer("lion", [param], lr=0.1)
    calls = []

    def closure() -> torch.Tensor:
        calls.append(1)
        optimizer.zero_grad()
        loss = param.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2 and len(calls) == 1


def test_every_name_of_the_table_is_registered_and_described() -> None:
    rows = registry("optimizers")
    assert len(ROWS) == 101 + 4
    for name, spec in ROWS.items():
        assert name in rows and spec.help and spec.target.count(":") == 1
    with pytest.raises(UnknownNameError, match="adamw"):
        rows.resolve("adamww")


def test_rules_declare_what_they_take() -> None:
    for name in OURS:
        cls = registry("optimizers").resolve(name).load()
        assert issubclass(cls, Optimizer) and cls.__doc__
