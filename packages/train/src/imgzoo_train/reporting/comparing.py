"""The page of two runs side by side: what one has over the other, and what sets them apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imgzoo.errors import UsageError
from imgzoo.page import text
from imgzoo.text import duration, told
from imgzoo_train.files.storage import replace_text
from imgzoo_train.scores.metrics import lower_is_better

from .figures import PLAIN, Figure, line, title, unit
from .page import uncertainty
from .parts import Sections, note, score, table, tiles
from .reading import DAMAGED, RunFiles, times_of
from .record import EVALUATION, FOLDER

LISTED = 25
"""Most classes that are listed as better, and as worse."""


def write_comparison(one: RunFiles, two: RunFiles, path: Path) -> Path:
    """Write the page that compares two runs; returns where.

    Raises `StorageError` where it cannot be written, `UsageError` where a file of one of the runs is damaged.
    """
    try:
        page = render(one, two)
    except DAMAGED as error:
        raise UsageError(f"a JSON file of {one.path} or {two.path} is damaged: {told(error)}") from error
    replace_text(path, page)
    return path


def render(one: RunFiles, two: RunFiles) -> str:
    """The page as text."""
    found, names = Sections(), names_of(one, two)
    found.add("Curves", found.pairs(curves(one, two)) or note("Neither run has a log row yet."))
    found.add("Scores", scores(one, two))
    found.add("Classes", classes(one, two))
    environments = [{key: value for key, value in run.environment.items() if key != "data"} for run in (one, two)]
    data = [run.environment.get("data") or {} for run in (one, two)]
    for kind, (a, b), same in (
        ("Settings", (one.settings, two.settings), "The settings are the same, but for the folder."),
        ("Data", data, "The data is the same, as far as environment.json says."),
        ("Environment", environments, "Both ran on the same."),
    ):
        found.add(
            f"{kind} that differ{'s' * (kind != 'Settings')}", differences(dict(flat(a)), dict(flat(b)), names, same)
        )
    head = f'<p class="headline">{text(headline(one, two))}</p>{tiles(key_figures(one, two))}'
    return found.page(f"imgzoo {names[0]} and {names[1]}", "comparison", " and ".join(names), head)


def names_of(one: RunFiles, two: RunFiles) -> tuple[str, str]:
    """The names of the folders, or their paths where these are the same."""
    return (one.name, two.name) if one.name != two.name else (str(one.path), str(two.path))


def headline(one: RunFiles, two: RunFiles) -> str:
    """Which run is better, by how much, whether that is more than chance, and what it cost."""
    (a, b), metric = names_of(one, two), one.metric
    times = [times_of(run.rows).whole for run in (one, two)]
    cost = f"{b} took {duration(times[1])}, {a} {duration(times[0])}."
    if one.task != two.task:
        return f"{a} is about {one.task}, {b} about {two.task}: their scores do not compare. {cost}"
    first, second = (run.best[0].get(metric, math.nan) for run in (one, two))
    gap = second - first
    if not math.isfinite(gap):
        lacking = " and ".join(name for name, value in ((a, first), (b, second)) if not math.isfinite(value))
        return f"No {title(metric)} of {lacking} to compare. {cost}"
    if not gap:
        return f"Both reach {score(metric, first)} {title(metric)}. {cost}"
    better = (gap > 0) != lower_is_better(metric)
    points = f"{abs(gap):.4g}" if metric in PLAIN else f"{abs(gap):.2f} points"
    words = f"{b} is {'better' if better else 'worse'} than {a} by {points} of {title(metric)}"
    words += f" ({score(metric, second)} and {score(metric, first)})"
    if _validated(one) != _validated(two):
        return f"{words}, but on other images of validation: the scores do not compare. {cost}"
    noise = math.hypot(*(uncertainty(metric, run.best[0]) for run in (one, two)))
    if noise:
        words += f", {'more than' if abs(gap) > noise else 'within'} the ±{noise:.2g} that chance leaves"
    return f"{words}. {cost}"


def _validated(run: RunFiles) -> tuple[Any, ...]:
    """What is known of the images that a run was scored on."""
    told = (run.environment.get("data") or {}).get("validation") or {}
    return told.get("source"), told.get("samples"), told.get("served")


def key_figures(one: RunFiles, two: RunFiles) -> list[tuple[str, str, str]]:
    found = []
    for name, run in zip(names_of(one, two), (one, two)):
        times, value = times_of(run.rows), run.best[0].get(one.metric)
        told = "no score yet" if value is None else score(one.metric, value)
        below = f"{run.model} on {run.source}, {run.epochs:.4g} epochs in {duration(times.whole)}, {run.state}"
        found.append((name, told, below))
    return found


def curves(one: RunFiles, two: RunFiles) -> list[Figure]:
    """Loss of both splits, score and speed, a color a run."""
    names, runs = names_of(one, two), (one, two)
    losses, scored, rates, speed = [], [], [], []
    for color, (name, run) in enumerate(zip(names, runs)):
        losses += line(f"{name}, training", run.training, "loss", color)
        losses += line(f"{name}, validation", run.scored, "loss", color, dashed=True)
        scored += line(name, run.scored, one.metric, color)
        rates += line(name, run.training, "lr", color)
        speed += line(name, run.training, "images_per_second", color)
    found = [
        Figure("Loss", "epoch", "loss", losses),
        Figure(f"Score: {title(one.metric)}", "epoch", unit(one.metric), scored),
        Figure("Learning rate", "epoch", "largest of all groups", rates),
        Figure("Speed", "epoch", "images a second", speed),
    ]
    return [each for each in found if each.lines]


def scores(one: RunFiles, two: RunFiles) -> str:
    """All scores of the best weights of both."""
    both, names = (one.best[0], two.best[0]), names_of(one, two)
    rows = []
    for name in dict.fromkeys([*both[0], *both[1]]):
        a, b = (each.get(name) for each in both)
        cells = [score(name, value) if value is not None else "not measured" for value in (a, b)]
        change = f"{b - a:+.4g}" if isinstance(a, (int, float)) and isinstance(b, (int, float)) else ""
        rows.append((title(name), *cells, change))
    return table(("score", *names, "difference"), rows) or note("Neither run has a score yet.")


def classes(one: RunFiles, two: RunFiles) -> str:
    """The classes that the second run knows better, and those it knows worse."""
    rates = [_rates(run) for run in (one, two)]
    for run, found in zip((one, two), rates):
        if not found and run.task != "regression":
            return note(f"{run.name}: " + run.says(f"{FOLDER}/{EVALUATION}", "The scores of its classes"))
    changes = sorted(((rates[1][name] - value, name) for name, value in rates[0].items() if name in rates[1]))
    better = [each for each in reversed(changes) if each[0] > 0][:LISTED]
    worse = [each for each in changes if each[0] < 0][:LISTED]
    parts = []
    a, b = names_of(one, two)
    for words, rows in (("Better", better), ("Worse", worse)):
        listed = [
            (name, [gap / 100], f"{rates[0][name]:.1f}", f"{rates[1][name]:.1f}", f"{gap:+.1f}") for gap, name in rows
        ]
        shown = table(("class", "", f"{a} %", f"{b} %", "points"), listed) or note("None.")
        parts.append(f"<div><h3>{words} in {text(b)}</h3>{shown}</div>")
    return f'<div class="pair">{"".join(parts)}</div>' if rates[0] and rates[1] else ""


def _rates(run: RunFiles) -> dict[str, float]:
    """Recall of each class, or average precision of each label."""
    rates = run.evaluation.get("rates") or {}
    values = rates.get("ap") or rates.get("recall") or []
    return {name: value for name, value in zip(run.evaluation.get("labels") or [], values) if value is not None}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as rows of dotted names, but for where a run is written."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif f"{prefix}{key}" != "run.output":
            yield f"{prefix}{key}", value


def differences(one: Mapping[str, Any], two: Mapping[str, Any], names: tuple[str, str], same: str) -> str:
    """Rows of what differs, or the sentence that nothing does."""
    keys = [key for key in dict.fromkeys([*one, *two]) if one.get(key) != two.get(key)]
    rows = [(key, *("unset" if each.get(key) is None else str(each[key]) for each in (one, two))) for key in keys]
    return table(("", *names), rows, words=(0, 1, 2)) or note(same)
