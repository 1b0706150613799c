"""What every benchmark here yields: rows of one form, printed, saved as JSON and drawn as a Markdown table."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OWN_PYTHON = ROOT / ".nox" / "imgzoo" / "bin" / "python"
PEER_PYTHON = Path(sys.executable) if find_spec("timm") else ROOT / ".nox" / "parity" / "bin" / "python"
"""The environment that has the peer beside all our packages."""


@dataclass(frozen=True)
class Row:
    """One piece of work. Figures are costs (less is better) unless `unit` ends with /s; `ratio` is better above 1."""

    part: str
    work: str
    unit: str
    ours: float
    peer: float | None
    ratio: float | None
    spread: tuple[float, float] | None
    """Least and largest ratio of the paired rounds."""
    target: str
    met: bool | None
    """None where the row has no target."""
    bound: str
    """What keeps us from being faster."""
    headline: bool = False
    accuracy: str = ""
    """Of training: top-1 of both, and the interval of the difference."""


def paired(
    part: str,
    work: str,
    unit: str,
    pairs: list[tuple[float, float]],
    target: float | None,
    bound: str,
    scale: float = 1.0,
) -> Row:
    """A row from rounds of (ours, peer), each a cost: medians, the median of the ratios and their spread."""
    ratios = [peer / max(ours, 1e-9) for ours, peer in pairs]
    ratio = statistics.median(ratios)
    ours, peer = (statistics.median(pair[i] for pair in pairs) * scale for i in (0, 1))
    said, met = (f">= {target:g}x", ratio >= target) if target else ("", None)
    return Row(part, work, unit, ours, peer, ratio, (min(ratios), max(ratios)), said, met, bound)


def alone(part: str, work: str, unit: str, ours: float, most: float | None, bound: str, headline: bool = False) -> Row:
    """A row that has no counterpart in the peer; `most` is what it may cost."""
    met = None if most is None else ours <= most
    said = "" if most is None else f"<= {most:g} {unit}"
    return Row(part, work, unit, ours, None, None, None, said, met, bound, headline)


def mean(part: str, work: str, rows: list[Row], target: float, least: float | None = None) -> Row:
    """The headline over rows with a ratio: geometric mean, and the least one as the lower end of the spread."""
    ratios = [row.ratio for row in rows if row.ratio]
    ratio = math.exp(statistics.mean(map(math.log, ratios)))
    said = f"mean >= {target:g}x" + (f", none < {least:g}x" if least else "")
    met = ratio >= target and (least is None or min(ratios) >= least)
    ours, peer = (sum(getattr(row, side) for row in rows) / len(rows) for side in ("ours", "peer"))
    bound = max(rows, key=lambda row: -(row.ratio or 0)).bound
    return Row(part, work, rows[0].unit, ours, peer, ratio, (min(ratios), max(ratios)), said, met, bound, True)


def cases(script: str, *flags: object) -> Iterator[Any]:
    """What a benchmark's worker prints, line by line; one process of the parity environment holds both sides."""
    command = [str(PEER_PYTHON), script, "--worker", *map(str, flags)]
    environment = {**os.environ, "KINETO_LOG_LEVEL": "6"}
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert worker.stdout is not None
    found = False
    for line in worker.stdout:
        found = True
        yield json.loads(line)
    if worker.wait() or not found:
        sys.exit("the worker failed")


class Contender:
    """A benchmark's own script as a process of the parity environment, run with `--serve ARGUMENTS` as JSON.

    It reads a line for each thing to do and answers with a line of JSON.
    """

    def __init__(self, script: str, *arguments: object, environ: dict[str, str] | None = None) -> None:
        command = [str(PEER_PYTHON), "-W", "ignore", script, "--serve", json.dumps(arguments)]
        env = {**os.environ, **(environ or {})}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, word: str) -> Any:
        """What the process answers to a word."""
        assert self.process.stdin and self.process.stdout
        print(word, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        return json.loads(line) if line else sys.exit(f"a contender ended: {self.process.wait()}")

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)


def seconds(call: Callable[[], object], count: int = 1) -> float:
    """The shortest of `count` calls."""
    best = math.inf
    for _ in range(count):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def peak_memory(step: Callable[[], object]) -> tuple[int, float]:
    """Bytes allocated at the most during a step, beyond what stood before it; and its seconds."""
    import torch

    start = time.perf_counter()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
        seconds = time.perf_counter() - start
    current = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            current += event.nbytes()
            most = max(most, current)
    return most, seconds


def figure(value: float | None, unit: str = "") -> str:
    """Three digits and the unit."""
    if value is None:
        return "-"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def markdown(rows: Iterable[Row]) -> str:
    """The table of the README and of docs/benchmarks.md."""
    rows = list(rows)
    names = ["work", "ours", "peer", "ratio", "target", "bound by"]
    if any(row.accuracy for row in rows):
        names.insert(5, "top-1, ours against the peer's")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        ratio = "-"
        if row.ratio is not None:
            spread = f" ({row.spread[0]:.2f} to {row.spread[1]:.2f})" if row.spread else ""
            ratio = f"{row.ratio:.2f}x{spread}"
        target = row.target + (" (missed)" if row.met is False else "")
        cells = [row.work, figure(row.ours, row.unit), figure(row.peer, row.unit), ratio, target, row.bound]
        if len(names) > len(cells):
            cells.insert(5, row.accuracy)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def matrix(rows: Iterable[Row]) -> str:
    """Rows of `KIND of NAME` as a table: a name a line, of each kind the ratio and our figure."""
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        kind, _, name = row.work.rpartition(" of ")
        cells.setdefault(name, {})[kind] = f"{row.ratio:.2f}x, {figure(row.ours, row.unit)}"
    kinds = list(dict.fromkeys(kind for line in cells.values() for kind in line))
    lines = [f"| network | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    return "\n".join(
        [*lines, *(f"| {name} | {' | '.join(line.get(kind, '-') for kind in kinds)} |" for name, line in cells.items())]
    )


def show(row: Row) -> None:
    ratio = f"{row.ratio:6.2f}x" if row.ratio is not None else " " * 7
    missed = "  missed" if row.met is False else ""
    ours, peer = figure(row.ours, row.unit), figure(row.peer, row.unit)
    print(f"{row.work:58} {ours:>12} {peer:>12} {ratio}  {row.target}{missed}", flush=True)


def save(rows: Iterable[Row], path: Path) -> None:
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def read(path: Path) -> list[Row]:
    found = json.loads(path.read_text())
    return [Row(**{**row, "spread": tuple(row["spread"]) if row["spread"] else None}) for row in found]


def main(
    doc: str | None,
    rows: Callable[[argparse.Namespace], Iterator[Row]],
    options: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
) -> None:
    """The command line of a benchmark: its own options, `--quick`, and `--json FILE`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options(parser)
    args = parser.parse_args()
    if not PEER_PYTHON.exists():
        parser.exit(1, "the peer is missing; run python -m nox -s bench, which installs it\n")
    found = []
    for row in rows(args):
        show(row)
        found.append(row)
    if args.json:
        save(found, args.json)
