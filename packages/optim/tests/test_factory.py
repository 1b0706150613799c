"""Facts about creation, groups, clipping and bad input."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from imgzoo.errors import MissingDependencyError, OptionError, UnknownNameError, UsageError
from imgzoo_optim import clip_gradients, create_optimizer, create_scheduler, decay_groups, explain


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)
        self.token = nn.Parameter(torch.ones(1, 1, 4))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^stem|^token", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}

    def no_weight_decay(self) -> set[str]:
        return {"token"}

    def get_classifier(self) -> nn.Module:
        return self.head


def named(model: nn.Module, groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group for group in groups for p in group["params"]}


def test_every_parameter_is_in_exactly_one_group() -> None:
    model = Net()
    groups = decay_groups(model, 0.05, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(named(model, groups)) == len(list(model.parameters()))


def test_vectors_biases_and_listed_names_have_no_decay() -> None:
    model = Net()
    rows = named(model, decay_groups(model, 0.05, no_weight_decay=["blocks.0.*"]))
    free = {name for name, group in rows.items() if group["weight_decay"] == 0}
    assert free == {n for n, p in model.named_parameters() if p.ndim < 2 or n in ("token", "blocks.0.weight")}


def test_layer_decay_counts_back_from_the_head() -> None:
    model = Net()
    scales = {name: g["lr_scale"] for name, g in named(model, decay_groups(model, 0.05, layer_decay=0.5)).items()}
    assert scales["head.weight"] == 1 and scales["norm.weight"] == scales["blocks.2.weight"] == 0.5
    assert scales["blocks.0.weight"] == 0.125 and scales["stem.weight"] == scales["token"] == 0.0625


def test_layer_decay_has_a_floor_and_freezes_what_is_too_deep() -> None:
    model = Net()
    rows = named(model, decay_groups(model, 0.05, layer_decay=0.5, layer_decay_min_scale=0.2))
    assert rows["stem.weight"]["lr_scale"] == 0.2
    decay_groups(model, 0.05, layer_decay=0.5, layer_decay_no_opt_scale=0.1)
    assert not model.stem.weight.requires_grad and model.blocks[0].weight.requires_grad


def test_layer_decay_acts_without_a_schedule() -> None:
    optimizer = create_optimizer("adamw", Net(), lr=0.1, weight_decay=0.05, layer_decay=0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.1 * 0.5**k for k in range(5)}


def test_muon_leaves_named_parameters_to_its_fallback() -> None:
    model = Net()
    optimizer = create_optimizer("muon", model, lr=0.1, fallback=["head.*"])
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    assert "momentum_buffer" in optimizer.state[model.blocks[0].weight]
    assert "exp_avg" in optimizer.state[model.head.weight] and "exp_avg" in optimizer.state[model.norm.weight]


def test_explain_prints_the_plan() -> None:
    text = explain(create_optimizer("adamw", Net(), lr=0.1, weight_decay=0.05, layer_decay=0.5))
    assert "0.0625" in text and "stem.weight" in text and "0.05" in text


def test_param_group_fn_replaces_the_rules_and_is_checked() -> None:
    model = Net()
    optimizer = create_optimizer("adamw", model, lr=0.1, param_group_fn=lambda m: [{"params": m.parameters()}])
    assert len(optimizer.param_groups) == 1
    with pytest.raises(UsageError, match="no group"):
        create_optimizer("adamw", model, lr=0.1, param_group_fn=lambda m: [{"params": m.head.parameters()}])
    with pytest.raises(UsageError, match="two groups"):
        create_optimizer("adamw", model, lr=0.1, param_group_fn=lambda m: [*m.parameters(), *m.head.parameters()])


def test_fused_kernels_are_used_where_torch_has_them() -> None:
    assert all(create_optimizer(n, Net(), lr=0.1).param_groups[0]["fused"] for n in ("sgd", "adam", "adamw", "adagrad"))
    assert not create_optimizer("adamw", Net(), lr=0.1, foreach=True).param_groups[0]["fused"]


def test_added_groups_are_trained() -> None:
    optimizer = create_optimizer("lionc", [nn.Parameter(torch.ones(2))], lr=0.1, weight_decay=0.1)
    late = nn.Parameter(torch.ones(2))
    optimizer.add_param_group({"params": [late], "lr": 0.5})
    late.grad = torch.ones(2)
    optimizer.step()
    torch.testing.assert_close(late.detach(), torch.full((2,), 0.95 - 0.5))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: create_optimizer("adamww", m, lr=0.1), UnknownNameError, "did you mean adamw"),
        (lambda m: create_optimizer("adamw", m, lr=0.1, bets=(0.9, 0.99)), OptionError, "betas"),
        (lambda m: create_optimizer("adamw", m, lr=-0.1), UsageError, "lr"),
        (lambda m: create_optimizer("lion", m, lr=float("nan")), UsageError, "lr"),
        (lambda m: create_optimizer("adan", m, lr=0.1, betas=(0.9, 1.0, 0.9)), UsageError, r"\[0, 1\)"),
        (lambda m: create_optimizer("adamw", m, lr=0.1, weight_decay=-1), UsageError, "weight_decay"),
        (lambda m: create_optimizer("adamw", m, lr=0.1, momentum=0.9), OptionError, "no momentum"),
        (lambda m: create_optimizer("adamw", [], lr=0.1), UsageError, "no parameters"),
        (lambda m: create_optimizer("adamw", m.requires_grad_(False), lr=0.1), UsageError, "frozen"),
        (lambda m: create_optimizer("adamw", m, lr=0.1, nonfinite="ignore"), UsageError, "raise or skip"),
        (lambda m: create_optimizer("muon", m, lr=0.1, ns_coefficients="none"), UsageError, "quintic"),
        (lambda m: create_optimizer("bnbadam8bit", m, lr=0.1), MissingDependencyError, "pip install bitsandbytes"),
        (lambda m: create_optimizer("fusedlamb", m, lr=0.1), MissingDependencyError, "apex"),
        (lambda m: clip_gradients(m, 1.0, "best"), UsageError, "norm, value, agc"),
    ],
)
def test_bad_input_is_one_typed_sentence(call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        call(Net())
    assert "\n" not in str(caught.value)


def test_nan_gradients_follow_the_policy() -> None:
    for policy in ("raise", "skip"):
        param = nn.Parameter(torch.ones(2))
        optimizer = create_optimizer("adamw", [param], lr=0.1, nonfinite=policy)
        param.grad = torch.tensor([1.0, float("nan")])
        if policy == "raise":
            with pytest.raises(UsageError, match="NaN"):
                optimizer.step()
        else:
            optimizer.step()
        assert torch.equal(param.detach(), torch.ones(2))


def graded() -> Net:
    model = Net()
    for param in model.parameters():
        param.grad = torch.full_like(param, 2.0)
    return model


def test_clipping_by_norm_equals_torch() -> None:
    mine, theirs = graded(), graded()
    norm = clip_gradients(mine, 1.5)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(theirs.parameters(), 1.5))
    for a, b in zip(mine.parameters(), theirs.parameters()):
        torch.testing.assert_close(a.grad, b.grad)


def test_clipping_by_value_bounds_every_element_and_returns_the_norm() -> None:
    model = graded()
    count = sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(clip_gradients(model, 0.5, "value"), torch.tensor(2.0 * count**0.5))
    assert all((param.grad == 0.5).all() for param in model.parameters())


def test_adaptive_clipping_bounds_each_unit_and_spares_the_head() -> None:
    model = graded()
    clip_gradients(model, 0.1, "agc")
    weight, grad = model.stem.weight.detach(), model.stem.weight.grad
    limit = 0.1 * weight.flatten(1).norm(dim=1).clamp(min=1e-3)
    torch.testing.assert_close(grad.flatten(1).norm(dim=1), limit)
    assert (model.head.weight.grad == 2).all()


def test_listing_needs_no_torch() -> None:
    code = "import sys; from imgzoo.registry import registry\n"
    code += "registry('optimizers').names(); registry('schedulers').names()\n"
    code += "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_bridge_reads_names_from_source() -> None:
    from imgzoo_optim._bridge import class_names

    source = "from torch.optim import SGD\nfrom pytorch_optimizer.optimizer.a import Ada, agc\n"
    assert class_names(source + "OPTIMIZER_LIST: list = [SGD, Ada]") == ["Ada"]


def test_digits_are_learned() -> None:
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))
    optimizer = create_optimizer("adamw", model, lr=5e-3, weight_decay=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:1500]), y[:1500]).backward()
        optimizer.step()
    assert (model(x[1500:]).argmax(1) == y[1500:]).float().mean() > 0.9


def test_arguments_in_another_order_or_of_another_kind_are_one_sentence() -> None:
    with pytest.raises(UsageError, match="name comes first, then the model; got a Net"):
        create_optimizer(Net(), "adamw")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not a NoneType"):
        create_optimizer("adamw", None)
    with pytest.raises(UsageError, match="not one tensor"):
        create_optimizer("adamw", torch.ones(2))


@pytest.mark.parametrize("name", ["adamw", "lamb", "muon", "adafactor", "sgd", "lookahead_lion"])
def test_numbers_of_numpy_are_saved_as_numbers(name: str) -> None:
    """They came from files and sums, and a saved state that holds them is refused where it is read with care."""
    weight = nn.Parameter(torch.ones(4, 4))
    more: Any = {"betas": np.array([0.9, 0.95])} if name in ("adamw", "lamb") else {}
    more |= {"lookahead_alpha": np.float64(0.5), "lookahead_k": np.int64(2)} if "lookahead" in name else {}
    given: Any = [{"params": [weight], "weight_decay": np.float32(0.5)}]
    optimizer = create_optimizer(name, given, lr=np.float64(1e-3), **more)
    create_scheduler("cosine", optimizer, total=np.int64(10), warmup=np.int64(2)).apply(optimizer, 3)
    weight.grad = torch.ones(4, 4)
    optimizer.step()
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    saved.seek(0)
    torch.load(saved, weights_only=True)


def test_tensors_stay_tensors() -> None:
    weight, rate = nn.Parameter(torch.ones(4, 4)), torch.tensor(1e-3)
    assert create_optimizer("adamw", [weight], lr=rate, fused=False).param_groups[0]["lr"] is rate
    assert create_optimizer("lamb", [weight], lr=rate).param_groups[0]["lr"] is rate


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_groups_may_hold_named_parameters(name: str) -> None:
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    groups = [{"params": [("a", weight)], "lr": 0.5}, {"params": iter([("b", bias)])}]
    optimizer = create_optimizer(name, groups, lr=0.1)
    assert [(g["names"], g["params"], g["lr"]) for g in optimizer.param_groups] == [
        (["a"], [weight], 0.5),
        (["b"], [bias], 0.1),
    ]
    with pytest.raises(UsageError, match="two groups"):
        create_optimizer(name, [{"params": [("a", weight)]}, {"params": [weight]}], lr=0.1)


def test_a_rate_beside_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="adamw_lr"):
        create_optimizer("muon", Net(), lr=0.0, adamw_lr=0.1)
