"""Every loss against its paper's formula, element by element in float64; reductions; options; weights of classes."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from imgzoo.errors import ImgzooError, OptionError, UsageError
from imgzoo.options import kinds_of
from imgzoo.registry import registry
from imgzoo_train import Teacher, class_weights, create_loss, distillation, supervised
from imgzoo_train.loop.weighting import parse_weights, read_class_counts, read_class_weights

GENERATOR = torch.Generator().manual_seed(0)
OUTPUT = 2 * torch.randn(6, 5, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.tensor([0, 1, 2, 3, 4, 0])
LABELS = (torch.arange(30).view(6, 5) % 3 == 0).double()
LABELS[0], LABELS[1] = 0, 1  # an image without a positive, one without a negative
LABELS[:, 2], LABELS[2:, 3] = 0, 1  # a class without positives
COUNTS, TOTAL = [9.0, 4.0, 1.0, 3.0, 12.0], 20
NEEDED = {"class-balanced": {"counts": COUNTS}, "distribution-balanced": {"counts": COUNTS, "total": TOTAL}}
SPECS = [spec for spec in registry("losses").specs() if spec.plugin == "train"]
NAMES = [spec.name for spec in SPECS]
VALUES = ("mse", "l1", "huber")


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def softmax(row):
    total = sum(math.exp(z) for z in row)
    return [math.exp(z) / total for z in row]


def softly(y, classes=5, smoothing=0.1):
    return [(1 - smoothing) * (k == y) + smoothing / classes for k in range(classes)]


def single(term):
    """The mean over samples of a sum over classes of `term(probability, target, is it the class)`."""
    total = 0.0
    for row, y in zip(OUTPUT.tolist(), TARGET.tolist()):
        total += sum(term(p, t, k == y) for k, (p, t) in enumerate(zip(softmax(row), softly(y))))
    return total / len(OUTPUT)


def several(term, mean):
    """`term(chance, answer)` over all cells, summed over classes or not, mean over samples."""
    cells = [term(sigmoid(z), y) for row, ys in zip(OUTPUT.tolist(), LABELS.tolist()) for z, y in zip(row, ys)]
    return sum(cells) / (30 if mean else 6)


def bce(p, y):
    return -(y * math.log(p) + (1 - y) * math.log(1 - p))


def away(p, y):
    return y * (1 - p) + (1 - y) * p


def smooth(y):
    return 0.9 * y + 0.05


def asymmetric(p, y):
    m = max(p - 0.05, 0.0)
    return -3 * y * (1 - p) * math.log(p) - (1 - y) * m**4 * math.log(1 - m)


SMOOTH = {"smoothing": 0.1}
SINGLE = {
    "cross-entropy": (SMOOTH, lambda: single(lambda p, t, is_it: -t * math.log(p))),
    "focal": ({"gamma": 2.0, **SMOOTH}, lambda: single(lambda p, t, is_it: -t * (1 - p) ** 2 * math.log(p))),
    "poly": ({"epsilon": 2.0, **SMOOTH}, lambda: 2 + single(lambda p, t, is_it: -t * math.log(p) - 2 * t * p)),
    "asymmetric-single": (
        SMOOTH | {"gamma_pos": 1.0},
        lambda: single(lambda p, t, is_it: -t * math.log(p) * ((1 - p) if is_it else p**4)),
    ),
}
SEVERAL = {
    "bce": ({}, lambda: several(bce, True)),
    "sigmoid-focal": (
        {},
        lambda: several(lambda p, y: (0.25 if y else 0.75) * away(p, y) ** 2 * bce(p, y), False),
    ),
    "asymmetric": ({"pos_weight": [3.0] * 5}, lambda: several(asymmetric, False)),
    "poly-bce": (
        {"epsilon": 2.0, "gamma": 2.0, "alpha": 0.25},
        lambda: several(lambda p, y: (0.25 if y else 0.75) * (away(p, y) ** 2 * bce(p, y) + 2 * away(p, y) ** 3), True),
    ),
}
SMOOTHED = {
    "bce": lambda: several(lambda p, y: bce(p, smooth(y)), True),
    "poly-bce": lambda: several(lambda p, y: bce(p, smooth(y)) + away(p, smooth(y)), True),
}


@pytest.mark.parametrize("name", SINGLE)
def test_one_label_an_image(name):
    options, wanted = SINGLE[name]
    assert create_loss(name, **options)(OUTPUT, TARGET).item() == pytest.approx(wanted(), rel=1e-12)


@pytest.mark.parametrize("name", SEVERAL)
def test_several_labels_an_image(name):
    options, wanted = SEVERAL[name]
    assert create_loss(name, **options)(OUTPUT, LABELS).item() == pytest.approx(wanted(), rel=1e-12)


@pytest.mark.parametrize("name", SMOOTHED)
def test_smoothed_answers_move_towards_one_half(name):
    assert create_loss(name, smoothing=0.1)(OUTPUT, LABELS).item() == pytest.approx(SMOOTHED[name](), rel=1e-12)


def test_class_balanced_weighs_by_the_effective_number():
    weights = [(1 - 0.999) / (1 - 0.999**n) for n in COUNTS]
    scale = sum(COUNTS) / sum(w * n for w, n in zip(weights, COUNTS))
    each = [-scale * weights[y] * math.log(softmax(row)[y]) for row, y in zip(OUTPUT.tolist(), TARGET.tolist())]
    found = create_loss("class-balanced", counts=COUNTS)(OUTPUT, TARGET).item()
    assert found == pytest.approx(sum(each) / 6, rel=1e-6)


def test_jsd_equals_its_formula():
    parts = [OUTPUT[:2].tolist(), OUTPUT[2:4].tolist(), OUTPUT[4:].tolist()]
    total = 0.0
    for i in range(2):
        chances = [softmax(part[i]) for part in parts]
        mean = [sum(row) / 3 for row in zip(*chances)]
        total -= math.log(chances[0][TARGET[i]])
        total += 12 * sum(p * math.log(p / m) for row in chances for p, m in zip(row, mean)) / 3
    assert create_loss("jsd")(OUTPUT, TARGET).item() == pytest.approx(total / 2, rel=1e-12)


def target_of(name, labels=True):
    if name in VALUES:
        return OUTPUT.flip(0)
    return LABELS if labels and name not in ("cross-entropy", "jsd", "asymmetric-single") else TARGET


@pytest.mark.parametrize("name", [name for name in NAMES if name != "two-way"])
def test_reductions_agree(name):
    """The mean and the sum are those of what `none` gives; every sample has its own."""
    built = {way: create_loss(name, reduction=way, **NEEDED.get(name, {})) for way in ("none", "mean", "sum")}
    each = built["none"](OUTPUT, target_of(name))
    assert each.shape == (2,) if name == "jsd" else (6,)
    torch.testing.assert_close(built["mean"](OUTPUT, target_of(name)), each.mean())
    torch.testing.assert_close(built["sum"](OUTPUT, target_of(name)), each.sum())
    with pytest.raises(UsageError, match="reduction is 'mean' or 'sum' or 'none', not 'max'"):
        create_loss(name, reduction="max", **NEEDED.get(name, {}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_losses_compute_in_float32_at_least(name, dtype):
    loss = create_loss(name, **NEEDED.get(name, {}))
    output = OUTPUT.to(dtype)
    value = loss(output, target_of(name).to(dtype) if name in VALUES else target_of(name))
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    exact = loss(output.double(), target_of(name).to(dtype).double() if name in VALUES else target_of(name))
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)


SENSELESS = (math.nan, math.inf, -math.inf, -1, 0, 0.5, 2, "x", True, None, [0.5] * 3, [-1.0] * 5, [math.nan] * 5, {})


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_every_value_of_every_option_is_refused_by_name_or_works(spec):
    for option in kinds_of(spec.load()):
        for value in SENSELESS:
            try:
                loss = create_loss(spec.name, **{**NEEDED.get(spec.name, {}), option: value})
            except ImgzooError as error:
                assert option in str(error), error
                continue
            if option in ("weight", "pos_weight", "counts", "splits") and value not in (None, 0.5):
                continue
            assert loss(OUTPUT, target_of(spec.name)).isfinite().all(), f"{option}={value!r}"


def test_what_a_loss_needs_and_does_not_take_is_said():
    with pytest.raises(UsageError, match=r"'class-balanced' cannot be built: .*counts"):
        create_loss("class-balanced")
    with pytest.raises(
        OptionError, match=r"no option smothing \(did you mean smoothing\?\); valid options are pos_weight"
    ):
        create_loss("bce", smothing=0.1)


def test_weights_of_positives_power_and_limit():
    counts = torch.tensor(COUNTS)
    wanted = [(20 - n) / n for n in COUNTS]
    torch.testing.assert_close(class_weights(counts, "positives", total=20), torch.tensor(wanted))
    rooted = class_weights(counts, "positives", total=20, power=0.5, most=2.5)
    torch.testing.assert_close(rooted, torch.tensor([min(w**0.5, 2.5) for w in wanted]))
    for call in (lambda: class_weights(counts, "positives"), lambda: class_weights(counts, "positives", total=5)):
        with pytest.raises(UsageError, match="total"):
            call()
    with pytest.raises(UsageError, match="balanced, effective, positives"):
        class_weights(counts, "inverse")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.txt", "1\n2\n3.5\n"),
        ("w.csv", "1,2,3.5"),
        ("w.json", "[1, 2, 3.5]"),
        ("w.json", '{"class_weight": [1, 2, 3.5]}'),
        ("w.json", '{"fox": 3.5, "dog": 2, "cat": 1}'),
    ],
)
def test_weights_come_from_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_class_weights(tmp_path / name, ["cat", "dog", "fox"]).tolist() == [1, 2, 3.5]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", "holds 2 weights for 3 classes"),
        ("[1, 2, -1]", "at least 0"),
        ("[1, 2, NaN]", "at least 0"),
        ('{"cat": 1, "dog": 1}', "has no class 'fox'"),
        ('{"cat": 1, "dog": 1, "fox": 1, "cow": 1}', "names 'cow'"),
        ("{", "no file of class weights"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, text, says):
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(UsageError, match=says):
        read_class_weights(tmp_path / "w.json", ["cat", "dog", "fox"])


def test_statistics_come_from_a_file(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"pos_counts": COUNTS, "num_samples": TOTAL}))
    names = [str(i) for i in range(len(COUNTS))]
    counts, total = read_class_counts(tmp_path / "s.json", names)
    assert counts.tolist() == COUNTS and total == TOTAL
    with pytest.raises(UsageError, match=f"counts {len(COUNTS)} classes, the data has 2"):
        read_class_counts(tmp_path / "s.json", names[:2])
    (tmp_path / "n.json").write_text(
        json.dumps({"pos_counts": dict(zip(reversed(names), reversed(COUNTS))), "num_samples": TOTAL})
    )
    assert read_class_counts(tmp_path / "n.json", names)[0].tolist() == COUNTS
    (tmp_path / "s.json").write_text(json.dumps({"pos_counts": COUNTS, "num_samples": 5}))
    with pytest.raises(UsageError, match="between 0 and num_samples"):
        read_class_counts(tmp_path / "s.json", names)


@pytest.mark.parametrize("text", ["balanced:nowhere.json", "sqrt", "sqrt:nowhere.json"])
def test_weights_are_modes_or_files(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"not '{text}'"):
        parse_weights(text)
    Path("s.json").write_text("{}")
    assert parse_weights("balanced") == ("balanced", None) and parse_weights("s.json") == ("", Path("s.json"))
    assert parse_weights("positives:s.json") == ("positives", Path("s.json"))


class Batch:
    images, targets = torch.randn(6, 3, 4, 4, generator=GENERATOR), TARGET


def network():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5))
    model.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
    return model


def test_a_script_distils_without_a_run():
    student, other = network(), network()
    teacher = Teacher(other, student.pretrained_cfg, other.pretrained_cfg)
    loss = distillation(create_loss("cross-entropy"), student, teacher, weight=0.25, temperature=2.0)
    own, theirs = student(Batch.images), other(Batch.images)
    soft = F.kl_div(F.log_softmax(own / 2, 1), F.softmax(theirs / 2, 1), reduction="batchmean") * 4
    torch.testing.assert_close(loss(student, Batch), 0.75 * F.cross_entropy(own, TARGET) + 0.25 * soft)
    plain = supervised(create_loss("cross-entropy"))
    torch.testing.assert_close(plain(student, Batch), F.cross_entropy(own, TARGET))
    for option, value in (("weight", 2), ("temperature", 0), ("kind", "logits")):
        with pytest.raises(UsageError, match=option):
            distillation(plain, student, teacher, **{option: value})
    with pytest.raises(UsageError, match="optimizer"):
        distillation(plain, student, teacher, kind="feature")
