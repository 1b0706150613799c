"""Losses against their formulas, and their registry."""

import math

import pytest
import torch
import torch.nn.functional as F

from imgzoo.errors import OptionError, UnknownNameError, UsageError
from imgzoo.registry import registry
from imgzoo_train.loop import losses
from imgzoo_train.loop.losses import class_weights, create_loss
from imgzoo_train.runs.assembly import check_loss

torch.manual_seed(0)
OUTPUT = torch.randn(6, 5, dtype=torch.float64).float()
TARGET = torch.tensor([0, 1, 2, 3, 4, 0])
HOT = F.one_hot(TARGET, 5).float()
LABELS = (torch.arange(30).view(6, 5) % 3 == 0).float()
EXTRA = {
    "class-balanced": {"counts": [1, 2, 3, 4, 5]},
    "distribution-balanced": {"counts": [1, 2, 3, 4, 5], "total": 20},
    "jsd": {"splits": 3},
}
VALUES = ("mse", "l1", "huber")
NAMES = [spec.name for spec in registry("losses").specs() if spec.plugin == "train"]


@pytest.mark.parametrize("name", NAMES)
def test_every_registered_loss_is_a_finite_scalar_that_learns(name):
    loss = create_loss(name, **EXTRA.get(name, {}))
    weights = torch.zeros(6, 5, requires_grad=True)
    target = HOT if name in VALUES else TARGET
    first = loss(weights + OUTPUT, target)
    assert first.ndim == 0
    assert torch.isfinite(first)
    optimizer = torch.optim.SGD([weights], lr=0.5)
    for _ in range(40):
        optimizer.zero_grad()
        loss(weights + OUTPUT, target).backward()
        optimizer.step()
    assert loss(weights + OUTPUT, target) < first


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("jsd",)])
def test_a_batch_of_equal_halves_has_the_loss_of_a_half(name):
    """Accumulation adds means of parts: a loss must be a mean over samples."""
    if name == "two-way":
        pytest.skip("compares images of a batch with each other")
    loss = create_loss(name, **EXTRA.get(name, {}))
    target = HOT if name in VALUES else TARGET
    both = loss(torch.cat([OUTPUT, -OUTPUT]), torch.cat([target, target]))
    parts = (loss(OUTPUT, target) + loss(-OUTPUT, target)) / 2
    torch.testing.assert_close(both, parts)


def test_hard_and_one_hot_targets_agree():
    for name in ("cross-entropy", "smoothing", "bce", "poly", "asymmetric-single"):
        loss = create_loss(name)
        torch.testing.assert_close(loss(OUTPUT, TARGET), loss(OUTPUT, HOT))


def test_smoothing_equals_the_definition():
    smooth = HOT * 0.9 + 0.1 / 5
    wanted = -(smooth * F.log_softmax(OUTPUT, 1)).sum(1).mean()
    torch.testing.assert_close(create_loss("smoothing")(OUTPUT, TARGET), wanted)


def test_binary_cross_entropy_options():
    plain = F.binary_cross_entropy_with_logits(OUTPUT, HOT)
    torch.testing.assert_close(create_loss("bce")(OUTPUT, TARGET), plain)
    torch.testing.assert_close(create_loss("bce", sum_classes=True)(OUTPUT, TARGET), plain * 5)
    soft = HOT * 0.7 + 0.06
    torch.testing.assert_close(create_loss("bce", threshold=0.5)(OUTPUT, soft), plain)
    weighted = F.binary_cross_entropy_with_logits(OUTPUT, HOT, pos_weight=torch.full((5,), 3.0))
    torch.testing.assert_close(create_loss("bce", pos_weight=[3.0] * 5)(OUTPUT, TARGET), weighted)


def test_jsd_of_equal_splits_is_the_clean_loss():
    loss = create_loss("jsd", splits=3)
    torch.testing.assert_close(loss(OUTPUT.repeat(3, 1), TARGET.repeat(3)), F.cross_entropy(OUTPUT, TARGET))
    moved = torch.cat([OUTPUT, -OUTPUT, OUTPUT * 2])
    assert loss(moved, TARGET.repeat(3)) > F.cross_entropy(OUTPUT, TARGET)
    with pytest.raises(UsageError, match="augmentation splits"):
        loss(OUTPUT[:4], TARGET[:4])


def test_asymmetric_without_focus_is_binary_cross_entropy():
    loss = create_loss("asymmetric", gamma_neg=0.0, gamma_pos=0.0, margin=0.0)
    wanted = F.binary_cross_entropy_with_logits(OUTPUT, LABELS, reduction="none").sum(1).mean()
    torch.testing.assert_close(loss(OUTPUT, LABELS), wanted)
    single = create_loss("asymmetric-single", gamma_neg=0.0, smoothing=0.0)
    torch.testing.assert_close(single(OUTPUT, TARGET), F.cross_entropy(OUTPUT, TARGET))


def test_poly_adds_epsilon_times_the_missing_probability():
    chance = OUTPUT.softmax(1)[torch.arange(6), TARGET]
    wanted = F.cross_entropy(OUTPUT, TARGET) + 2.0 * (1 - chance).mean()
    torch.testing.assert_close(create_loss("poly", epsilon=2.0)(OUTPUT, TARGET), wanted)


def test_zlpr_equals_its_formula():
    total = 0.0
    for scores, labels in zip(OUTPUT.tolist(), LABELS.tolist()):
        negative = 1 + sum(math.exp(s) for s, y in zip(scores, labels) if not y)
        positive = 1 + sum(math.exp(-s) for s, y in zip(scores, labels) if y)
        total += math.log(negative) + math.log(positive)
    assert create_loss("zlpr")(OUTPUT, LABELS).item() == pytest.approx(total / 6, rel=1e-5)


def test_two_way_ignores_images_without_both_sides_and_stays_finite():
    loss = create_loss("two-way")
    assert loss(OUTPUT, torch.ones(6, 5)).item() == 0.0
    assert torch.isfinite(loss(OUTPUT, LABELS))
    good = torch.where(LABELS > 0, 20.0, -20.0)
    assert loss(good, LABELS) < 1e-3


def test_two_way_equals_its_formula_where_a_side_is_missing():
    """Rows and columns with a positive count; without a negative they are right already, and add nothing."""
    labels = LABELS.clone()
    labels[0], labels[:, 1], labels[:, 2] = 0, 1, 0

    def side(output, yes):
        total, rows = 0.0, 0
        for scores, marks in zip(output.tolist(), yes.tolist()):
            if not any(marks):
                continue
            rows += 1
            if all(marks):
                continue
            negative = math.log(sum(math.exp(s) for s, y in zip(scores, marks) if not y))
            positive = 4 * math.log(sum(math.exp(-s / 4) for s, y in zip(scores, marks) if y))
            total += math.log1p(math.exp(negative + positive))
        return total / rows

    wanted = side(OUTPUT, labels) + side(OUTPUT.T, labels.T)
    assert create_loss("two-way")(OUTPUT, labels).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_distribution_balanced_equals_its_formula(gamma):
    """arXiv:2007.09654, equations 6, 9 and 10, on rows without a positive and without a negative too."""
    labels = LABELS.clone()
    labels[0], labels[1] = 0, 1
    counts, total = [9.0, 4.0, 1.0, 3.0, 12.0], 20
    loss = create_loss("distribution-balanced", counts=counts, total=total, gamma=gamma)
    wanted = 0.0
    for scores, marks in zip(OUTPUT.tolist(), labels.tolist()):
        drawn = sum(1 / n for n, y in zip(counts, marks) if y)
        for z, y, n in zip(scores, marks, counts):
            share = 1 / n / drawn if drawn else math.inf
            weight = 0.1 + (1 / (1 + math.exp(-10 * (share - 0.3))) if drawn else 1.0)
            z = z - 0.05 * math.log(total / n - 1)  # the start makes a rare class unlikely
            each = math.log1p(math.exp(-z)) if y else math.log1p(math.exp(5 * z)) / 5
            chance = 1 / (1 + math.exp(-z)) if y else 1 / (1 + math.exp(5 * z))
            wanted += weight * each * (2 * (1 - chance) ** gamma if gamma else 1.0)
    assert loss(OUTPUT, labels).item() == pytest.approx(wanted / 30, rel=1e-4)


def test_distribution_balanced_focuses_each_side_of_a_soft_target():
    """A share of a yes: the yes side times its factor, the no side times its own."""
    options = {"counts": [10], "total": 20, "gamma": 2.0, "scale": 2.0, "beta": 0.0}
    score = torch.tensor([[1.3]], dtype=torch.float64)

    def at(share, **more):
        loss = create_loss("distribution-balanced", **options, **more)
        return loss(score, torch.tensor([[share]], dtype=torch.float64)).item()

    mixed = 0.7 * at(1.0) + 0.3 * at(0.0)
    assert at(0.7) == pytest.approx(mixed, rel=1e-9)
    assert at(1.0, smoothing=0.6) == pytest.approx(mixed, rel=1e-9)


def test_distribution_balanced_weighs_rare_classes_more():
    loss = create_loss("distribution-balanced", counts=[1, 1000], total=2000, bias=0.0)
    scores = torch.zeros(1, 2, requires_grad=True)
    loss(scores, torch.ones(1, 2)).backward()
    rare, common = (-scores.grad[0]).tolist()
    assert rare > 2 * common > 0


def test_class_weights_have_mean_one_over_samples_and_skip_empty_classes():
    counts = torch.tensor([90, 10, 0])
    for mode in ("balanced", "effective"):
        weights = class_weights(counts, mode)
        assert (weights * counts).sum().item() == pytest.approx(100, rel=1e-5)
        assert weights[1] > weights[0]
        assert weights[2] == 0
    balanced = class_weights(counts, "balanced")
    assert (balanced[1] / balanced[0]).item() == pytest.approx(9, rel=1e-5)


def test_weighted_cross_entropy_is_a_mean_over_samples():
    loss = losses.CrossEntropy(weight=[1.0, 2.0, 1.0, 1.0, 1.0])
    each = F.cross_entropy(OUTPUT, TARGET, reduction="none")
    each = each * torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0])[TARGET]
    torch.testing.assert_close(loss(OUTPUT, TARGET), each.mean())


def test_mistakes_are_named():
    with pytest.raises(UnknownNameError, match="bce"):
        create_loss("bcee")
    with pytest.raises(OptionError, match="bce"):
        create_loss("bce", smothing=0.1)


SOFTMAX = ("cross-entropy", "smoothing", "soft-target", "focal", "class-balanced", "jsd", "asymmetric-single", "poly")


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
@pytest.mark.parametrize("name", NAMES)
def test_losses_of_labels_and_of_numbers_go_with_their_tasks(name, task):
    """A model of several labels answers by sigmoid: a softmax, or squares of logits, would teach it something else."""
    given = EXTRA.get(name, {})
    loss = create_loss(name, **{**given, "counts": [1, 2]} if "counts" in given else given)
    tasks = {"regression"} if name in VALUES else {"classification", *(() if name in SOFTMAX else ["multilabel"])}
    if task in tasks:
        check_loss(name, loss, task, 2, torch.device("cpu"), 12)
        return
    with pytest.raises(UsageError, match=f"--loss {name} does not go with --task {task}: it is of"):
        check_loss(name, loss, task, 2, torch.device("cpu"), 12)


FOCAL = [
    ("focal", {"gamma": 0.5}),
    ("class-balanced", {"gamma": 0.5, "counts": [1.0, 2.0, 3.0]}),
    ("asymmetric-single", {"gamma_neg": 0.5, "gamma_pos": 0.5}),
    ("asymmetric", {"gamma_neg": 0.5, "gamma_pos": 0.5}),
    ("sigmoid-focal", {"gamma": 0.5}),
    ("poly-bce", {"gamma": 0.5}),
    ("distribution-balanced", {"gamma": 0.5, "counts": [1.0, 2.0, 3.0], "total": 6}),
]


@pytest.mark.parametrize(("name", "options"), FOCAL)
def test_a_focus_below_one_has_a_slope_for_what_is_certain(name, options):
    """The power's own slope is infinite at zero, and met a zero there."""
    output = torch.tensor([[200.0, -200.0, 0.1], [-200.0, 0.2, 200.0], [-5.0, 3.0, 40.0]], requires_grad=True)
    create_loss(name, **options)(output, torch.tensor([0, 2, 1])).backward()
    assert output.grad.isfinite().all() and output.grad.abs().sum() > 0
