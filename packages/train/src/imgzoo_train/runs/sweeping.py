"""Train over a grid or random draws of settings; a sweep that was cut short goes on where it was."""

from __future__ import annotations

import csv
import itertools
import json
import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imgzoo.errors import ImgzooError, UsageError
from imgzoo_train.config.settings import Config, nested, parse_setting
from imgzoo_train.files import storage
from imgzoo_train.ranks.signals import Interrupted

Trial = dict[str, Any]


def parse_grid(texts: Sequence[str]) -> list[tuple[str, list[Any]]]:
    """`optim.lr=[0.1, 0.3]` -> ("optim.lr", [0.1, 0.3])."""
    found = []
    for text in texts:
        key, values = parse_setting(text, "--grid", "optim.lr=[0.1, 0.3]")
        if not isinstance(values, list) or not values:
            quoted = ", texts in quotes: optim.name=['sgd', 'adamw']" if "['" not in text and '["' not in text else ""
            raise UsageError(f"--grid takes KEY=[VALUE, VALUE, ...]{quoted}; not '{text}'")
        found.append((key, values))
    return found


def parse_draw(text: str) -> tuple[str, str, list[Any]]:
    """`optim.lr=log:1e-4:1e-1`, `optim.weight_decay=uniform:0:0.1` or `optim.name=choice:sgd:adamw`."""
    key, _, law = text.partition("=")
    kind, *values = law.split(":")
    if kind not in ("log", "uniform", "int", "choice") or not key or not values:
        raise UsageError(f"--random takes KEY=log:LOW:HIGH, uniform:LOW:HIGH, int:LOW:HIGH or choice:A:B, not '{text}'")
    if kind == "choice":
        return key, kind, [parse_setting(f"{key}={value}")[1] for value in values]
    try:
        low, high = (float(value) for value in values)
    except ValueError as error:
        raise UsageError(f"--random {text}: {kind} takes two numbers") from error
    if low > high or (kind == "log" and low <= 0):
        raise UsageError(
            f"--random {text}: the first number must be {'positive and ' if kind == 'log' else ''}the lower"
        )
    return key, kind, [low, high]


def draw(law: tuple[str, str, list[Any]], chance: random.Random) -> Any:
    """A value of a law."""
    _, kind, values = law
    if kind == "choice":
        return chance.choice(values)
    low, high = values
    if kind == "log":
        return math.exp(chance.uniform(math.log(low), math.log(high)))
    return chance.randint(int(low), int(high)) if kind == "int" else chance.uniform(low, high)


def plan(grid: Sequence[str], draws: Sequence[str], trials: int, seed: int) -> list[Trial]:
    """Settings of every trial: each point of the grid, with `trials` draws each where there are laws."""
    tables, laws = parse_grid(grid), [parse_draw(text) for text in draws]
    if not tables and not laws:
        raise UsageError("a sweep needs --grid KEY=[...] or --random KEY=LAW")
    points = [dict(zip([key for key, _ in tables], values)) for values in itertools.product(*(v for _, v in tables))]
    if not laws:
        return points
    chance = random.Random(seed)
    return [{**point, **{law[0]: draw(law, chance) for law in laws}} for point in points for _ in range(trials)]


def sweep(config: Config, trials: Sequence[Trial], folder: Path, *, quiet: bool = True) -> Iterator[Trial]:
    """Run the trials one after another in `folder`, yielding each one's row; finished ones are read, not run again.

    Raises `UsageError` when the folder holds another sweep.
    """
    with storage.held(storage.make_folder(folder)):
        yield from _trials(config, trials, folder, quiet)


def _trials(config: Config, trials: Sequence[Trial], folder: Path, quiet: bool) -> Iterator[Trial]:
    from .run import train

    text = json.dumps({"config": config.dump(), "trials": list(trials)}, indent=1)
    record = folder / "sweep.json"
    if record.is_file() and record.read_text(encoding="utf-8") != text:
        raise UsageError(f"{folder} holds another sweep; choose another --output")
    storage.replace_text(record, text)
    rows: list[Trial] = []
    for number, values in enumerate(trials):
        path = folder / f"trial-{number:03d}"
        done = path / "summary.json"
        if not done.is_file():
            try:
                chosen = config.merged(nested({**values, "run.output": str(path)}), f"trial {number}")
                train(chosen, resume=(path / "config.toml").is_file(), quiet=quiet)
            except Interrupted:
                raise
            except Exception as error:  # whatever a trial dies of, the others go on
                text = str(error) if isinstance(error, ImgzooError) else f"{type(error).__name__}: {error}"
                rows.append({"trial": number, **values, "error": text.splitlines()[0]})
                write_table(rows, folder / "sweep.csv")
                yield rows[-1]
                continue
        summary = json.loads(done.read_text(encoding="utf-8"))
        rows.append({"trial": number, **values, **summary["best"], "seconds": summary["seconds"]})
        write_table(rows, folder / "sweep.csv")
        yield rows[-1]


def mean_of_folds(rows: Sequence[Trial], points: Sequence[Trial], name: str) -> list[Trial]:
    """A row for each point: mean and standard deviation of `name` over its folds, and how many there were."""
    groups: dict[str, list[Trial]] = {}
    for row in rows:
        point = {key: value for key, value in points[row["trial"]].items() if key != "data.fold"}
        groups.setdefault(json.dumps(point), []).append(row)
    found: list[Trial] = []
    for text, group in groups.items():
        scores = [row[name] for row in group if row.get(name) is not None]
        if scores:
            deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
            mean = {name: statistics.fmean(scores), f"{name}_std": deviation, "folds": len(scores)}
            found.append({"trial": "mean", **json.loads(text), **mean})
    return found


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as CSV."""
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    storage.replace_text(path, text.getvalue())
