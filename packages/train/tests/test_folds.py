"""Folds of a sweep; focal and class-balanced losses."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from test_changed_resume import go  # noqa: F401
from train_commands import TINY, invoke

from imgzoo.errors import UsageError
from imgzoo_train import create_loss
from imgzoo_train.cli import sweep
from imgzoo_train.loop.losses import class_weights
from imgzoo_train.runs.sweeping import parse_grid


def test_a_sweep_runs_every_fold_and_says_their_mean(tmp_path):
    arguments = ["test_resnet", "--data", "digits:", *TINY, "--epochs", 1, "--output", tmp_path / "s", "--folds", 2]
    rows = json.loads(invoke(sweep, *arguments, "--json").stdout)
    *trials, mean = rows
    assert {row["data.fold"] for row in trials} == {0, 1}
    assert sum(row["n"] for row in trials) == 1437
    assert mean["trial"] == "mean" and mean["folds"] == 2
    assert mean["top1"] == pytest.approx(sum(row["top1"] for row in trials) / 2)


def test_focal_equals_its_formula():
    torch.manual_seed(0)
    output, target = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    chance = output.softmax(1)[torch.arange(6), target]
    wanted = -((1 - chance) ** 2 * chance.log()).mean()
    torch.testing.assert_close(create_loss("focal")(output, target), wanted)
    torch.testing.assert_close(create_loss("focal", gamma=0.0)(output, target), F.cross_entropy(output, target))
    yes = F.one_hot(target, 3).float()
    plain = create_loss("sigmoid-focal", gamma=0.0, alpha=None)(output, target)
    torch.testing.assert_close(plain, F.binary_cross_entropy_with_logits(output, yes, reduction="none").sum(1).mean())
    p = torch.where(yes > 0, output.sigmoid(), 1 - output.sigmoid())
    side = torch.where(yes > 0, 0.25, 0.75)
    torch.testing.assert_close(
        create_loss("sigmoid-focal")(output, yes), -(side * (1 - p) ** 2 * p.log()).sum(1).mean()
    )


def test_class_balanced_weighs_by_the_effective_number():
    torch.manual_seed(0)
    output, target, counts = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]), [100.0, 10.0, 1.0]
    weight = class_weights(torch.tensor(counts), "effective")
    assert weight[2] > weight[1] > weight[0]
    wanted = (F.cross_entropy(output, target, reduction="none") * weight[target]).mean()
    torch.testing.assert_close(create_loss("class-balanced", counts=counts)(output, target), wanted)


@pytest.mark.parametrize("name", ["focal", "class-balanced"])
def test_a_run_gives_a_loss_what_it_needs(go, name):  # noqa: F811
    assert go(epochs=1, loss__name=name)["step"] == 4


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("optim.lr", "--grid takes KEY=VALUE, such as optim.lr="),
        ("optim.name=[adamw,sgd]", r"texts in quotes: optim.name=\['sgd', 'adamw'\]; not 'optim.name=\[adamw,sgd\]'"),
        ("optim.lr=[]", r"--grid takes KEY=\[VALUE"),
    ],
)
def test_a_grid_that_is_none_is_told_how_to_be_one(grid, said):
    with pytest.raises(UsageError, match=said):
        parse_grid([grid])
    assert parse_grid(["optim.name=['sgd', 'adamw']"]) == [("optim.name", ["sgd", "adamw"])]
