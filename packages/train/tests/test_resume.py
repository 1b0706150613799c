"""A run that is killed anywhere ends bit for bit like one that was not; SIGTERM loses nothing and exits 143."""

import json

import pytest
from train_ranks import HERE, run_ranks


def trials(tmp_path, seed: int, count: int, how: str) -> list[dict]:
    codes, output = run_ranks([str(HERE / "kill_runs.py"), str(tmp_path), str(seed), str(count), how], 1, timeout=1500)
    assert codes == [0], output
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert len(rows) == count, output
    for row in rows:
        assert row["ended"], (row, output)
        assert row["different"] == [], row
    return rows


def test_killed_runs_end_like_undisturbed_ones(tmp_path):
    rows = trials(tmp_path, seed=7, count=3, how="kill")  # SGD, AdamW, and Muon, whose products see how memory lies
    assert any(codes == [-9] for row in rows for codes, _ in row["exits"])


@pytest.mark.slow
def test_twenty_killed_runs_end_like_undisturbed_ones(tmp_path):
    rows = trials(tmp_path, seed=1, count=20, how="kill")
    assert {row["ranks"] for row in rows} == {1, 2}
    assert {row["workers"] for row in rows} == {0, 2}


def check_term(rows: list[dict]) -> None:
    for row in rows:
        for codes, seconds in row["exits"]:
            assert codes in ([143] * row["ranks"], [0] * row["ranks"]), row  # 0: the call was never reached
            assert seconds < 60
    assert any(codes[0] == 143 for row in rows for codes, _ in row["exits"])


def test_a_terminated_run_saves_exits_143_and_goes_on(tmp_path):
    check_term(trials(tmp_path, seed=2, count=1, how="term"))


@pytest.mark.slow
def test_terminated_runs_lose_nothing_in_any_phase_on_any_rank(tmp_path):
    check_term(trials(tmp_path, seed=3, count=12, how="term"))
