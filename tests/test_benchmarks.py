"""The table of measurements keeps its form: every benchmark has rows, every row says its work, figures and bound."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from rows import Row, alone, markdown, mean, paired, read  # noqa: E402
from run import BENCHMARKS, RESULTS  # noqa: E402

ROWS = read(RESULTS)


def test_rows_come_from_benchmarks_and_every_benchmark_is_a_file():
    assert ROWS and {row.part for row in ROWS} <= set(BENCHMARKS)
    others = {"rows", "run"}
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - others == set(BENCHMARKS)


@pytest.mark.parametrize("row", ROWS, ids=[row.work for row in ROWS])
def test_a_row_is_whole(row: Row):
    assert row.work and row.ours > 0
    assert (row.peer is None) == (row.ratio is None)
    assert (row.met is None) == (not row.target)
    if row.spread:
        assert row.spread[0] <= row.ratio * 1.0001 and row.ratio <= row.spread[1] * 1.0001


def test_ratios_are_medians_of_pairs_and_headlines_geometric_means():
    row = paired("p", "w", "ms", [(1.0, 2.0), (1.0, 4.0), (2.0, 6.0)], 3.5, "b", 1e3)
    assert (row.ours, row.peer, row.ratio, row.spread, row.met) == (1000.0, 4000.0, 3.0, (2.0, 4.0), False)
    head = mean("p", "all", [row, paired("p", "v", "ms", [(1.0, 12.0)], None, "b")], 6.0, 2.0)
    assert head.ratio == pytest.approx(6.0) and head.met and head.headline
    assert not mean("p", "all", [row], 1.0, 3.5).met
    assert "(missed)" in markdown([alone("p", "w", "s", 2.0, 1.0, "b")])
