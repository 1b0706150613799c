"""The table of measurements keeps its form: every benchmark has rows, every row says its work, figures and bound."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import run  # noqa: E402
from rows import Row, alone, markdown, matrix, mean, paired, read  # noqa: E402
from run import BENCHMARKS, MEASURED, RESULTS  # noqa: E402

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


def test_many_networks_stand_in_one_table_a_line_each():
    rows = [paired("p", f"{kind} of {name}", "ms", [(1.0, 2.0)], None, "b") for name in "xy" for kind in ("a", "b c")]
    found = "| x | 2.00x, 1 ms | 2.00x, 1 ms |\n| y | 2.00x, 1 ms | 2.00x, 1 ms |"
    assert matrix(rows) == f"| network | a | b c |\n|---|---|---|\n{found}"


def test_the_middle_of_every_family_is_measured():
    from families import facts, middle

    names = middle()
    assert len(names) == sum(1 for _ in facts()) and set(names.values()) == {package for package, _ in facts()}


def test_rows_say_where_and_when_they_were_measured_and_whether_their_code_has_changed(tmp_path, monkeypatch):
    measured = json.loads(MEASURED.read_text())
    assert list(measured) == list(BENCHMARKS)
    assert {"date", "commit", "code", "cpu", "cores", "torch"} <= set.intersection(*map(set, measured.values()))
    measured["optim"]["code"] = run.code("optim")
    measured["loader"]["code"] = "of before"
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    monkeypatch.setattr(run, "MEASURED", tmp_path / "measured.json")
    told = {line.partition(":")[0]: line for line in run.ages()}
    assert told["optim"].endswith("; its code is the same") and told["loader"].endswith("; OLDER than its code")


def test_a_change_of_any_measured_file_is_seen(tmp_path):
    source = tmp_path / "packages" / "optim" / "src" / "imgzoo_optim"
    source.mkdir(parents=True)
    (source / "adam.py").write_text("step = 1")
    before = run.code("optim", tmp_path)
    (source / "notes.txt").write_text("no code")
    assert run.code("optim", tmp_path) == before
    (source / "adam.py").write_text("step = 2")
    assert run.code("optim", tmp_path) != before


def test_accuracy_is_a_column_and_a_training_row_is_met_only_within_noise():
    pytest.importorskip("scipy")
    from train import compared

    def seeds(*gaps: float) -> list[dict[str, dict[str, float]]]:
        return [{"ours": {"top1": 90 + gap}, "peer": {"top1": 90.0}} for gap in gaps]

    said, fair = compared(seeds(0.5, -0.5, 0.3, -0.3))
    assert fair and said == "90.0 against 90.0; difference -0.8 to +0.8 (95%, 4 seeds)"
    assert not compared(seeds(-1.0, -1.2, -0.8, -1.1))[1]  # worse, beyond noise
    assert not compared(seeds(9.0, -9.0, 8.0, -8.0))[1]  # nothing can be said
    assert not compared(seeds(0.0))[1]
    assert compared(seeds(3.0, 3.2, 2.9, 3.1))[1]
    row = paired("train", "w", "ms", [(1.0, 2.0)], 1.1, "b")
    assert "top-1" not in markdown([row])
    lines = markdown([replace(row, accuracy=said), row]).splitlines()
    assert "top-1" in lines[0] and said in lines[2] and len({line.count("|") for line in lines}) == 1
