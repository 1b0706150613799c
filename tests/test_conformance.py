"""The conformance kit on our own plugins: metadata and components of each, and one small model of every structure."""

import sys
from pathlib import Path

import pytest

import imgzoo
from imgzoo.testing import SkipCheck, iter_checks
from imgzoo.testing.kit import model_checks

sys.path.insert(0, str(Path(__file__).parent / "parity"))
from small import FACTS, QUICK, SMALLEST
from structures import REDUCED, STRUCTURES

PLUGINS = ("core", "archs-cnn", "archs-transformer", "archs-efficientnet", "optim", "data", "train")
SMALL = 15_000_000
EXAMPLES = {"dataset:digits": "", "loss:class-balanced": {"counts": range(1, 8)},
            "loss:distribution-balanced": {"counts": range(1, 8), "total": 50}}  # fmt: skip
OWN = [row for name in PLUGINS for row in iter_checks(name, tiers=("static", "component"), examples=EXAMPLES)]


def models():
    """The smallest structure of each family, if small, and the fixtures made for tests run always; others in `slow`.

    So does the smallest as it is, where fewer blocks of it run always.
    """
    for family, names in STRUCTURES.items():
        smallest = SMALLEST[family]
        for name in names:
            always = (name == smallest and FACTS[name][0] < SMALL) or name.startswith("test_")
            fewer = QUICK[name] if name == smallest else {}
            yield from cases(family, name, REDUCED.get(name, {}) | fewer, "", always)
            if fewer:
                yield from cases(family, name, REDUCED.get(name, {}), "-whole", False)


def cases(family, name, options, suffix, always):
    for subject, check in model_checks(imgzoo.get_spec(name), options=options):
        marks = [] if always else [pytest.mark.slow]
        yield pytest.param(subject, check, id=f"{family}-{name}-{check.name}{suffix}", marks=marks)


def run(subject, check):
    try:
        check(subject)
    except SkipCheck as skip:
        pytest.skip(str(skip))


@pytest.mark.parametrize("subject, check", OWN, ids=[f"{s}-{c.name}" for s, c in OWN])
def test_plugin(subject, check):
    run(subject, check)


@pytest.mark.parametrize("subject, check", list(models()))
def test_model(subject, check):
    run(subject, check)
