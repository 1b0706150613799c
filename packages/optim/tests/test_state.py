"""State and memory of every optimizer: copies, other dtypes and processes, tensors that are not dense, a rate of 0."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from imgzoo.errors import UsageError
from imgzoo_optim import create_optimizer, create_scheduler, decay_groups
from imgzoo_optim.table import optimizers

ROWS = {spec.name: spec for spec in optimizers()}
HERE = [name for name, spec in ROWS.items() if not any(t.startswith("requires") for t in spec.traits)]
PLAIN = [name for name in HERE if "closure" not in ROWS[name].traits]
SHAPES = [(16, 8), (8, 4, 3, 3), (8,), ()]
OPTIONS: dict[str, dict[str, Any]] = {"adahessian": {"update_each": 2}}
DTYPES = (torch.float32, torch.float64, torch.bfloat16)

pytestmark = pytest.mark.filterwarnings("ignore:.*create_graph=True", "ignore:.*Sparse invariant checks")


def make(name: str, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[list[Parameter], Any]:
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    given = {**OPTIONS.get(name, {}), "lr": 1e-2, "weight_decay": 1e-2, **options}
    return params, create_optimizer(name, params, **given)


def steps(params: list[Parameter], optimizer: Any, start: int, stop: int) -> list[torch.Tensor]:
    """Steps along gradients that depend on the step alone, or on the parameters where a rule needs second ones."""
    second = getattr(optimizer, "second_order", False)
    for i in range(start, stop):
        for k, param in enumerate(params):
            param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(10 * i + k)).to(param.dtype)
        if second:
            optimizer.zero_grad()
            torch.stack([(p**3).sum() for p in params]).sum().backward(create_graph=True)
        optimizer.step()
        if second:
            optimizer.zero_grad()
    return [param.detach().clone() for param in params]


def assert_equal(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("prefix", ["", "lookahead_"])
@pytest.mark.parametrize("name", PLAIN)
def test_copies_go_on_alike(name: str, prefix: str) -> None:
    if prefix:
        OPTIONS.setdefault(prefix + name, OPTIONS.get(name, {}))
    params, optimizer = make(prefix + name)
    steps(params, optimizer, 0, 7)
    copies = [copy.deepcopy((params, optimizer)), pickle.loads(pickle.dumps((params, optimizer)))]
    expected = steps(params, optimizer, 7, 10)
    for other, theirs in copies:
        assert_equal(steps(other, theirs, 7, 10), expected)


@pytest.mark.parametrize("name", PLAIN)
def test_state_is_loaded_in_the_precision_of_the_new_parameters(name: str) -> None:
    for source in DTYPES:
        _, saved = before = make(name, source)
        steps(*before, 0, 3)
        for target in DTYPES:
            params, loaded = make(name, target)
            loaded.load_state_dict(copy.deepcopy(saved.state_dict()))
            others, native = make(name, target)
            steps(others, native, 0, 1)
            for param, other in zip(params, others):
                for key, value in native.state[other].items():
                    for mine, theirs in zip(flat(loaded.state[param][key]), flat(value), strict=True):
                        assert mine.dtype == theirs.dtype, (source, target, key)
            assert all(torch.isfinite(p).all() for p in steps(params, loaded, 3, 5))


def flat(value: Any) -> list[torch.Tensor]:
    values = value if isinstance(value, list | tuple) else [value]
    return [x for x in values if isinstance(x, torch.Tensor)]


@pytest.mark.parametrize("name", PLAIN)
def test_a_detour_over_float64_loses_nothing(name: str) -> None:
    params, optimizer = make(name)
    steps(params, optimizer, 0, 3)
    _, wide = make(name, torch.float64)
    wide.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    others, again = make(name)
    again.load_state_dict(copy.deepcopy(wide.state_dict()))
    for a, b in zip(others, params):
        a.data.copy_(b)
    assert_equal(steps(others, again, 3, 6), steps(params, optimizer, 3, 6))


def run_on(path: Path) -> None:
    """What the second process does: go on from the files of the first and write where it got."""
    for file in sorted(path.glob("*.pt")):
        saved = torch.load(file, weights_only=False)
        params, optimizer = make(file.stem)
        for a, b in zip(params, saved["params"]):
            a.data.copy_(b)
        torch.manual_seed(99)
        optimizer.load_state_dict(saved["state"])
        torch.save(steps(params, optimizer, 3, 6), file.with_suffix(".out"))


def test_another_process_goes_on_alike(tmp_path: Path) -> None:
    expected = {}
    for name in PLAIN:
        params, optimizer = make(name)
        steps(params, optimizer, 0, 3)
        now = [p.detach().clone() for p in params]
        torch.save({"params": now, "state": optimizer.state_dict()}, tmp_path / f"{name}.pt")
        expected[name] = steps(params, optimizer, 3, 6)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport test_state, pathlib\n"
    code += f"test_state.run_on(pathlib.Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    for name, params in expected.items():
        for there, here in zip(torch.load(tmp_path / f"{name}.out"), params, strict=True):
            assert torch.equal(there, here), name


def gaps(shape: tuple[int, ...]) -> tuple[Parameter, torch.Tensor]:
    """A parameter that leaves every second place of its storage to a neighbor, and the neighbor."""
    store = torch.randn(*shape, 2, generator=torch.Generator().manual_seed(1))
    return Parameter(store[..., 0]), store[..., 1]


@pytest.mark.parametrize("layout", ["gaps", "transposed", "expanded gradient", "gradient in another order"])
@pytest.mark.parametrize("name", PLAIN)
def test_tensors_that_are_not_dense_step_as_dense_ones(name: str, layout: str) -> None:
    def run(plain: bool) -> torch.Tensor:
        param, neighbor = gaps((6, 8))
        if layout == "transposed":
            param = Parameter(param.detach().t().contiguous().t())
        elif layout != "gaps":
            param = Parameter(param.detach().contiguous())
        param = Parameter(param.detach().contiguous()) if plain else param
        untouched = neighbor.clone()
        optimizer = create_optimizer(name, [param], lr=1e-2, weight_decay=1e-2, **OPTIONS.get(name, {}))
        for i in range(3):
            grad = torch.randn(6, 8, generator=torch.Generator().manual_seed(i))
            if layout == "expanded gradient":
                grad = grad[:, :1].expand(6, 8)
            elif layout == "gradient in another order":
                grad = grad.t().contiguous().t()
            param.grad = grad.contiguous() if plain else grad
            if getattr(optimizer, "second_order", False):
                optimizer.zero_grad()
                (param**3).sum().backward(create_graph=True)
            optimizer.step()
        assert torch.equal(neighbor, untouched)
        return param.detach()

    torch.manual_seed(0)
    expected = run(True)
    torch.manual_seed(0)
    torch.testing.assert_close(run(False), expected, rtol=1e-5, atol=1e-6)


def test_a_fused_optimizer_meets_state_in_another_order() -> None:
    params, optimizer = make("adamw")
    steps(params, optimizer, 0, 2)
    state = copy.deepcopy(optimizer.state_dict())
    for row in state["state"].values():
        if row["exp_avg"].ndim == 4:
            row["exp_avg"] = row["exp_avg"].contiguous(memory_format=torch.channels_last)
    others, loaded = make("adamw")
    loaded.load_state_dict(state)
    for a, b in zip(others, params):
        a.data.copy_(b)
    for a, b in zip(steps(others, loaded, 2, 4), steps(params, optimizer, 2, 4)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dampening", [0.0, 0.5])
@pytest.mark.parametrize("name", ["sgd", "momentum"])
def test_a_parameter_that_joins_others_under_momentum_steps_as_alone(name: str, dampening: float) -> None:
    if name == "sgd" and dampening:
        pytest.skip("Nesterov momentum has no dampening")

    def run(born: list[int], **options: Any) -> list[torch.Tensor]:
        params = [Parameter(torch.ones(4)) for _ in born]
        optimizer = create_optimizer(name, params, lr=0.1, weight_decay=0.01, dampening=dampening, **options)
        for t in range(5):
            for param, first in zip(params, born):
                param.grad = torch.full((4,), 1.0 + t) if t >= first else None
            optimizer.step()
        return [param.detach().clone() for param in params]

    together = run([0, 2, 3])
    torch.testing.assert_close(together, [run([first], foreach=True)[0] for first in (0, 2, 3)])


def test_parameters_without_elements_are_passed_over() -> None:
    for name in PLAIN:
        if name == "adahessian":
            continue
        params = [Parameter(torch.ones(6, 5)), Parameter(torch.ones(0, 3)), Parameter(torch.ones(5, 0))]
        optimizer = create_optimizer(name, params, lr=0.1)
        for _ in range(2):
            for param in params:
                param.grad = torch.ones_like(param)
            optimizer.step()
        assert params[0].isfinite().all() and not params[0].eq(1).all(), name


FOLDED = ("rmsproptf", "crmsproptf", "cadafactor", "schedulefree")
"""Rules whose published momentum or average holds steps already multiplied by their rates: it goes on moving."""
FLOORED = ("madgrad",)
"""Rules whose published rate is `lr + eps`."""


@pytest.mark.parametrize("name", [name for name in PLAIN if not name.startswith(FLOORED)])
def test_a_rate_of_zero_moves_nothing_and_is_no_end(name: str) -> None:
    params, optimizer = make(name, lr=0.0)
    before = [param.detach().clone() for param in params]
    for a, b in zip(steps(params, optimizer, 0, 2), before):
        assert torch.equal(a, b)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    after = steps(params, optimizer, 2, 4)
    assert all(torch.isfinite(p).all() for p in after) and not torch.equal(after[0], before[0])
    if name.startswith(FOLDED):
        return
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    assert_equal(steps(params, optimizer, 4, 5), after)


def test_corrected_decay_follows_the_largest_rate_so_far() -> None:
    (param, *_), optimizer = make("adamc", lr=0.0)
    for rate in (1e-3, 4e-3, 2e-3):
        optimizer.param_groups[0]["lr"] = rate
        steps([param], optimizer, 0, 1)
    assert optimizer.param_groups[0]["max_lr"] == 4e-3
    _, other = make("adamc", lr=1e-3)
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["max_lr"] == 4e-3


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_copies_keep_the_policy_for_nan(name: str) -> None:
    params, optimizer = make(name, nonfinite="skip")
    for others, theirs in (copy.deepcopy((params, optimizer)), pickle.loads(pickle.dumps((params, optimizer)))):
        before = others[0].detach().clone()
        others[0].grad = torch.full_like(others[0], float("nan"))
        theirs.step()
        assert torch.equal(others[0], before)


def test_kron_draws_no_number_of_the_program() -> None:
    params, optimizer = make("kron")
    torch.manual_seed(5)
    steps(params, optimizer, 0, 2)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        runs.append(steps(*make("kron", deterministic=True), 0, 3))
    assert_equal(*runs)


def test_a_matcher_may_be_a_function() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))
    model.group_matcher = lambda coarse=False: lambda name: int(name.split(".")[0])
    groups = decay_groups(model, 0.1, layer_decay=0.5)
    scales = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert [scales[f"{i}.weight"] for i in range(3)] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("options", [{"clipping_threshold": 0.0}, {"clipping_threshold": -1.0}])
def test_a_threshold_is_above_zero(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="above 0"):
        make("nadamw", **options)


@pytest.mark.parametrize("name", ["adamwlegacy", "nadamw", "cadamw"])
def test_update_clipping_bounds_a_burst(name: str) -> None:
    """The root mean square of g / sqrt(v_hat) is held at the threshold (2304.13013, algorithm 2)."""
    moved = []
    for threshold in (None, 1.0):
        param = Parameter(torch.zeros(64, dtype=torch.float64))
        optimizer = create_optimizer(name, [param], lr=1.0, clipping_threshold=threshold, betas=(0.0, 0.99))
        for scale in (1e-3, 1.0):
            before = param.detach().clone()
            param.grad = scale * torch.linspace(0.5, 1.5, 64, dtype=torch.float64)
            optimizer.step()
        moved.append((param.detach() - before).norm().item())
    second = torch.tensor((0.99 * 1e-6 + 1) / 1.99, dtype=torch.float64)  # v_hat of the burst, in units of g^2
    assert moved[1] / moved[0] == pytest.approx(second.sqrt().item(), rel=1e-6)


def test_the_schedule_called_none_is_constant() -> None:
    assert [create_scheduler("none", total=10, base=0.3)(i) for i in (0, 5, 9)] == [0.3] * 3


@pytest.mark.parametrize("name", [name for name in PLAIN if not name.startswith("kron")])  # it draws on the device
def test_a_step_reads_nothing_back(name: str) -> None:
    """On the meta device there is no value to read; on a GPU the host would wait for it."""
    params = [Parameter(torch.empty(shape, device="meta")) for shape in SHAPES]
    optimizer = create_optimizer(name, params, lr=1e-2, weight_decay=1e-2, **OPTIONS.get(name, {}))
    second = getattr(optimizer, "second_order", False)
    for _ in range(8):
        for param in params:
            param.grad = torch.empty_like(param)
        if second:
            optimizer.zero_grad()
            torch.stack([(p**3).sum() for p in params]).sum().backward(create_graph=True)
        optimizer.step()


@pytest.mark.parametrize("name", PLAIN)
def test_a_copy_has_what_the_optimizer_shows(name):
    params, optimizer = make(name)
    steps(params, optimizer, 0, 1)
    shown, copied = ({key for key in vars(each) if key[0] != "_"} for each in (optimizer, copy.deepcopy(optimizer)))
    assert shown == copied
