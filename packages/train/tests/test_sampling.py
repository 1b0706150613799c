"""Rare classes more often, and folds; focal and class-balanced losses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_changed_resume import go  # noqa: F401
from test_commands import TINY, invoke

from imgzoo.errors import UsageError
from imgzoo_data.sources.base import Sample, Source
from imgzoo_train import create_loss
from imgzoo_train.cli import sweep
from imgzoo_train.losses import class_weights
from imgzoo_train.techniques.sampling import balanced, fold_of, split_folds


class Skewed(Source):
    """Sixteen of a class, four, one."""

    name = "skewed:"

    def __init__(self, targets=None):
        self.table = np.repeat([0, 1, 2], [16, 4, 1]) if targets is None else np.asarray(targets)
        self.class_names, self.num_classes, self.multi_label = ["a", "b", "c"], 3, self.table.ndim > 1

    def __len__(self):
        return len(self.table)

    def key(self, index):
        return f"{index}.png"

    def __getitem__(self, index):
        return Sample(b"", self.table[index], self.key(index))

    def targets(self):
        return self.table


@pytest.mark.parametrize(("mode", "counts"), [("balanced", [16, 16, 16]), ("sqrt", [16, 8, 4])])
def test_rare_classes_come_as_often_as_told_and_nothing_is_left_out(mode, counts):
    found = balanced(Skewed(), mode)
    assert np.bincount(found.targets()).tolist() == counts
    assert set(found.indices) == set(range(21))
    assert found[len(found) - 1].key == "20.png"
    assert found.key(0) == "0.png"


def test_an_image_of_several_labels_counts_as_its_rarest():
    targets = np.array([[1, 0, 0]] * 8 + [[1, 1, 0]] * 2 + [[0, 0, 0]] * 2, np.float32)
    found = balanced(Skewed(targets), "balanced")
    assert np.bincount(found.indices).tolist() == [1] * 8 + [5, 5, 1, 1]
    with pytest.raises(UsageError, match="a regression has none"):
        numbers = Skewed(np.arange(4.0))
        balanced(numbers, "balanced")


def test_folds_share_each_class_and_meet_nowhere():
    source = Skewed(np.repeat([0, 1, 2], [40, 20, 10]))
    folds = fold_of(source, 5)
    for label in range(3):
        assert (
            np.bincount(folds[source.table == label], minlength=5).tolist()
            == [len(folds[source.table == label]) / 5] * 5
        )
    seen = []
    for fold in range(5):
        train, validation = split_folds(source, 5, fold)
        assert not set(train.indices) & set(validation.indices)
        assert len(train) + len(validation) == 70
        seen += list(validation.indices)
    assert sorted(seen) == list(range(70))
    with pytest.raises(UsageError, match="fold 5 of 5"):
        split_folds(source, 5, 5)


def test_a_sweep_runs_every_fold_and_says_their_mean(tmp_path):
    arguments = ["test_resnet", "--data", "digits:", *TINY, "--epochs", 1, "--output", tmp_path / "s", "--folds", 2]
    rows = json.loads(invoke(sweep, *arguments, "--json").stdout)
    *trials, mean = rows
    assert {row["data.fold"] for row in trials} == {0, 1}
    assert sum(row["n"] for row in trials) == 1437
    assert mean["trial"] == "mean" and mean["folds"] == 2
    assert mean["top1"] == pytest.approx(sum(row["top1"] for row in trials) / 2)


def test_a_run_with_a_sampler_is_longer(go):  # noqa: F811
    for place in range(12):
        (go.data / "train" / "dog" / f"{place}.png").unlink()
    assert go(epochs=1)["step"] == 3
    (go.folder / "config.toml").parent.rename(go.folder.with_name("plain"))
    assert go(epochs=1, data__sampler="balanced")["step"] == 4


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
