"""A run that is killed anywhere ends bit for bit like one that was not; SIGTERM loses nothing and exits 143."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from kill_runs import digest
from test_changed_resume import pictures
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


CODES = {"worker": 0, "run": -9, "group": -9, "term": 143, "int": 130}
"""What is ended, or how -> the exit code of the run."""


class Command:
    """`imgzoo train` in a process group of its own, with two workers, and what ends it."""

    def __init__(self, tmp_path, name: str):
        self.folder = tmp_path / name
        begin = ["test_resnet", "--data", pictures(tmp_path / "data"), "--input-size", "16", "--batch-size", "4",
                 "--epochs", "5", "--save-every", "3", "--log-every", "5", "--ema", "0.9", "--mixup", "0.2",
                 "--workers", "2", "--threads", "1", "--device", "cpu"]  # fmt: skip
        words = ["--resume"] if (self.folder / "config.toml").exists() else begin
        self.begun, self.told = time.time(), tmp_path / f"{name}.txt"
        with self.told.open("a") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "imgzoo", "train", *words, "--output", str(self.folder)],
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    def trains(self) -> None:
        """Wait until the run folder is described, which is just before the first batch."""
        there = self.folder / "environment.json"
        while self.process.poll() is None and not (there.exists() and there.stat().st_mtime > self.begun):
            time.sleep(0.02)

    def end(self, how: str) -> None:
        """Send the process, all of its group, or one of its workers a signal."""
        number = {"term": signal.SIGTERM, "int": signal.SIGINT}.get(how, signal.SIGKILL)
        own = self.process.pid
        with contextlib.suppress(ProcessLookupError):
            if how in ("group", "int"):  # as the terminal does
                os.killpg(own, number)
            elif how == "worker":
                found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(own)], capture_output=True, text=True)
                for child in found.stdout.split()[-1:]:
                    os.kill(int(child), number)
            else:
                os.kill(own, number)

    def wait(self) -> int:
        """The exit code; no process of the group outlives it by more than some seconds."""
        code = self.process.wait(300)
        deadline = time.monotonic() + 20
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(self.process.pid, 0)
                time.sleep(0.1)
            raise AssertionError(f"processes outlive the run: {self.told.read_text()}")
        return code


@pytest.mark.slow
def test_a_command_killed_by_the_clock_ends_like_an_undisturbed_one(tmp_path):
    began = Command(tmp_path, "whole")
    began.trains()
    start = time.monotonic()
    assert began.wait() == 0, began.told.read_text()
    seconds, chance = time.monotonic() - start, random.Random()
    for ways in (["worker", "group"], ["run"], ["worker", "term"], ["int"], ["worker", "worker"]):
        run = Command(tmp_path, "killed")
        run.trains()
        for how in ways:
            time.sleep(seconds * chance.uniform(0, 0.4))
            run.end(how)
        code = run.wait()  # 0 where the run was over before
        assert code in (CODES[ways[-1]], 0), (ways, code, run.told.read_text())
    assert code == 0, run.told.read_text()
    assert digest(run.folder) == digest(began.folder), run.told.read_text()
