"""`report.html` of a run, from the files of its folder alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from imgzoo.errors import UsageError
from imgzoo.page import text
from imgzoo.text import counted, duration, shell_word, told
from imgzoo_train.files.storage import replace_text

from . import drawing
from .figures import curves, reliability, scatter, title
from .parts import Sections, note, score, table, tiles
from .reading import DAMAGED, RunFiles, times_of
from .record import CLASSES, EVALUATION, FOLDER, SEEN

LISTED = 50
"""Most confused pairs that are listed."""
ANSWERS = f"{FOLDER}/{EVALUATION}"
SMOOTHING = (
    '<p class="axes"><label>Smoothing <input id="smoothing" type="range" min="0" max="0.95" step="0.05" value="0">'
    '</label><label><input id="log" type="checkbox"> logarithmic loss</label></p>'
)


def write_report(run: RunFiles, path: Path) -> Path:
    """Write the page of a run; returns where. Raises `StorageError` where it cannot be written, `UsageError` where the
    rows or the summary of the run are damaged."""
    try:
        page = render(run)
    except DAMAGED as error:
        raise UsageError(f"metrics.jsonl or summary.json of {run.path} is damaged: {told(error)}") from error
    replace_text(path, page)
    return path


def render(run: RunFiles) -> str:
    """The page as text."""
    found = Sections()
    sections: dict[str, tuple[Callable[[], str], str]] = {
        "Curves": (lambda: shown_curves(found, run), "metrics.jsonl"),
        "Answers": (lambda: answered(found, run), ANSWERS),
        "What the network saw": (lambda: sheet(run), f"{FOLDER}/{SEEN}"),
        "Data": (lambda: health(run), "environment.json"),
        "Environment": (lambda: environment(run), "environment.json"),
        "Settings": (lambda: settings(run), "config.toml"),
    }
    for name, (build, file) in sections.items():
        try:
            found.add(name, build())
        except DAMAGED:
            found.add(name, note(f"{name}: {file} is damaged."))
    head = f'<p class="headline">{text(headline(run))}</p>{tiles(key_figures(run))}'
    return found.page(f"imgzoo run {run.name}", "run", f"{run.name} · {run.state}", head)


def shown_curves(found: Sections, run: RunFiles) -> str:
    """The curves, with what smooths them."""
    drawn = found.pairs(curves(run))
    return SMOOTHING + drawn if drawn else note(run.says("metrics.jsonl", "Curves"))


def settings(run: RunFiles) -> str:
    """The configuration as written."""
    if not run.text:
        return note(run.says("config.toml", "The settings"))
    return f"<details><summary>config.toml</summary><pre>{text(run.text)}</pre></details>"


def headline(run: RunFiles) -> str:
    """One line: what was trained, how good it is, how long it took, and what bounded it."""
    metrics, _, _ = run.best
    times = times_of(run.rows)
    good = f"{score(run.metric, metrics[run.metric])} {title(run.metric)}" if run.metric in metrics else "no score yet"
    length = f"{run.epochs:.4g} epoch{'s' if run.epochs != 1 else ''} in {duration(times.whole)}"
    left = {"finished": "after", "running": "and still running, after", "stopped": "and stopped before its end, after"}
    return f"{run.model} on {run.source}: {good} {left[run.state]} {length}. {verdict(times)}"


def verdict(times: Any) -> str:
    """What bounded the run: loading, evaluation or the model; and what would help."""
    trained = times.computing + times.waiting
    if not times.bound:
        return "Nothing trained yet."
    waited = f"{times.waiting / max(1e-9, trained):.0%} of training waited for data"
    if times.bound == "data":
        return f"Data bounded it: {waited}. More --workers, or smaller images on disk, would help."
    if times.bound == "evaluation":
        return "Evaluation bounded it: it took longer than training. A larger --eval-every would help."
    low = "--precision bf16" if computes_bfloat16() else "fewer layers with --freeze"
    return f"Compute bounded it: {waited}. A smaller model, {low} or --compile would help."


def computes_bfloat16() -> bool:
    """Whether there is an accelerator, or a processor with instructions for bfloat16."""
    import torch

    if torch.accelerator.is_available():
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def key_figures(run: RunFiles) -> list[tuple[str, str, str]]:
    """The best score, other scores, time, speed and size."""
    metrics, weights, step = run.best
    times = times_of(run.rows)
    found = []
    if run.metric in metrics:
        kind = f"{weights} weights of step {step}" if weights else f"of step {step}"
        if half := uncertainty(run.metric, metrics):
            kind = f"±{half:.2g}, {kind}"
        found.append((title(run.metric), score(run.metric, metrics[run.metric]), kind))
    for name in ("balanced_accuracy", "f1", "f1_micro", "exact", "mae", "loss", "calibration_error"):
        if name in metrics and name != run.metric:
            found.append((title(name), score(name, metrics[name]), "validation"))
    parts = {"computing": times.computing, "waiting": times.waiting, "evaluating": times.evaluating}
    parts["the rest"] = max(0.0, times.whole - sum(parts.values()))
    spent = ", ".join(f"{name} {seconds / max(1e-9, times.whole):.0%}" for name, seconds in parts.items())
    found.append(("time", duration(times.whole), spent))
    found.append(("speed", f"{times.rate:,.0f}", "images a second while training"))
    for name in ("left_out", "nonfinite"):
        if metrics.get(name):
            found.append((title(name), score(name, metrics[name]), "of validation"))
    return found[:8]


def uncertainty(metric: str, metrics: Mapping[str, float]) -> float:
    """Half the 95% interval of a share of right images in percent (Agresti-Coull); 0 for other scores."""
    count, value = metrics.get("n"), metrics.get(metric)
    if metric not in ("top1", "top5", "exact") or not count or value is None or not math.isfinite(value):
        return 0.0
    share = (value / 100 * count + 2) / (count + 4)
    return 196 * math.sqrt(share * (1 - share) / (count + 4))


def answered(found: Sections, run: RunFiles) -> str:
    """How validation was answered, in sections of their own: confusion, calibration, classes, points, mistakes."""
    facts = run.evaluation
    if not facts:
        return note(run.says(ANSWERS, "How the images of validation were answered"))
    labels: Sequence[str] = facts.get("labels") or []
    if facts.get("outputs", 0) > len(labels) and labels:
        found.add(
            "Classes shown", note(f"Of {facts['outputs']:,} classes these are the {CLASSES:,} with the lowest scores.")
        )
    if facts.get("confusion"):
        found.add("Confusion", confusion(found, labels, *facts["confusion"]))
    if facts.get("bins"):
        error = facts.get("metrics", {}).get("calibration_error")
        words = f"Expected calibration error {score('calibration_error', error)}, over {len(facts['bins'][0])} bins."
        found.add("Calibration", note(words) + found.pairs(reliability(facts["bins"])))
    if facts.get("points"):
        found.add("Predicted against true", found.pairs(scatter(facts["points"])))
    if facts.get("rates"):
        found.add("Classes", classes(labels, facts["rates"]))
    found.add("Worst mistakes", gallery(facts.get("worst"), "The images of validation with the largest loss."))
    found.add("Most confident mistakes", gallery(facts.get("sure"), "Wrong answers that the model was surest of."))
    return ""


def confusion(found: Sections, labels: Sequence[str], rows: list[int], columns: list[int], counts: list[int]) -> str:
    """The largest confusions as a list, beside the whole matrix."""
    whole: dict[int, int] = {}
    for row, count in zip(rows, counts):
        whole[row] = whole.get(row, 0) + count
    wrong = [(count, row, column) for row, column, count in zip(rows, columns, counts) if row != column]
    wrong.sort(key=lambda each: (-each[0], each[1], each[2]))
    listed = table(
        ("right", "given", "images", "of the class"),
        [(labels[i], labels[j], count, f"{count / whole[i]:.0%}") for count, i, j in wrong[:LISTED]],
        words=(0, 1),
    )
    size = len(labels)
    found.figures.append({"kind": "heat", "labels": labels, "rows": rows, "columns": columns, "counts": counts})
    picture = f'<img class="heat" alt="Confusion matrix" src="{drawing.heat(size, rows, columns, counts)}">'
    more = note(f"The {LISTED} largest of {len(wrong):,} confused pairs.") if len(wrong) > LISTED else ""
    return (
        f'<div class="pair"><div><h3>Largest confusions</h3>{listed or note("No mistake.")}{more}</div>'
        f'<figure class="figure tall"><h3>Right (down) and given (across), {counted(size, "class")}</h3>'
        f'<div data-figure="{len(found.figures) - 1}">{picture}</div></figure></div>'
    )


def classes(labels: Sequence[str], rates: Mapping[str, list[Any]]) -> str:
    """A row a class with bars, the lowest scores first, classes without images last."""
    key, name = ("ap", "average precision") if "ap" in rates else ("recall", "recall")
    rows = []
    for label, n, value, recall, precision in zip(labels, rates["n"], rates[key], rates["recall"], rates["precision"]):
        f1 = None
        if recall is not None and precision is not None:
            f1 = 2 * recall * precision / max(1e-9, recall + precision)
        figures = [value, *([recall] if key == "ap" else []), precision, f1]
        shown = ["" if figure is None else f"{figure:.1f}" for figure in figures]
        rows.append((101 if value is None else value, (label, f"{n:,}", [(value or 0) / 100], *shown)))
    rows.sort(key=lambda row: row[0])
    columns = [f"{name} %", *(["recall %"] if key == "ap" else []), "precision %", "F1 %"]
    return table(("class", "images", name, *columns), [cells for _, cells in rows])


def gallery(samples: Sequence[Mapping[str, Any]] | None, words: str) -> str:
    """Pictures with what is right, what was given, and how sure the model was of both."""
    figures = []
    for each in samples or ():
        shown = f'<img alt="" src="{text(each["image"])}">' if each.get("image") else (
            '<div class="none" role="img" aria-label="cannot be read"></div>')  # fmt: skip
        lines = [f'<b class="good">{_said(each["right"])}</b>', f'given <b class="bad">{_said(each["given"])}</b>']
        loss = each.get("loss")
        lines.append(f"{text(each['name'])}, loss {'not finite' if loss is None else f'{loss:.3g}'}")
        figures.append(f"<figure>{shown}<figcaption>{'<br>'.join(lines)}</figcaption></figure>")
    return note(words) + f'<div class="gallery">{"".join(figures)}</div>' if figures else ""


def _said(pairs: Sequence[Sequence[Any]]) -> str:
    """Labels with their probabilities."""
    return ", ".join(text(name) + ("" if chance is None else f" {chance:.1%}") for name, chance in pairs) or "nothing"


def sheet(run: RunFiles) -> str:
    """What the network was given of some samples in successive epochs."""
    if f"{FOLDER}/{SEEN}" in run.missing:
        return note(run.says(f"{FOLDER}/{SEEN}", "What the network saw"))
    if not run.seen:
        return note("The training data is a stream, of which no image can be shown.")
    figures = "".join(
        f'<figure class="strip"><img alt="" src="{text(each["image"])}"><figcaption>'
        f"<b>{text(each['target'])}</b> · {text(each['name'])}</figcaption></figure>"
        for each in run.seen
    )
    words = "Some training images as the network was given them in the first epochs, augmented, erased and mixed."
    return note(words) + f'<div class="gallery strips">{figures}</div>'


def health(run: RunFiles) -> str:
    """What served both splits, their classes, what was left out, and what to look at."""
    facts = run.environment.get("data")
    if not isinstance(facts, dict):
        return note(run.says("environment.json", "How the data was found"))
    cards = []
    for split in ("train", "validation"):
        part = facts.get(split) or {}
        least, most = part.get("fewest"), part.get("most")
        spread = "" if least is None else f" ({least:,} each)" if least == most else f" ({least:,} to {most:,} each)"
        rows = [
            ("images", f"{part['samples']:,}" if part.get("samples") is not None else "unknown"),
            ("classes" if part.get("named", True) else "outputs", f"{part.get('classes', 0):,}{spread}"),
            ("from", f"{part.get('source', '')}, {part.get('served', '')}"),
            ("labels", part.get("rule", "")),
            ("values", part.get("values", "")),
            *(("left out", f"{count:,} {what}") for what, count in (part.get("left_out") or {}).items()),
            *(("note", each) for each in part.get("notes") or ()),
            *(("contradiction", each) for each in part.get("contradictions") or ()),
        ]
        kept = [row for row in rows if row[1]]
        cards.append(f'<div class="card"><h3>{text(split)}</h3>{table(("", ""), kept, words=(0, 1))}</div>')
    return f'<div class="pair">{"".join(cards)}</div>' + note(f"Shared by both: {facts.get('shared', 'unknown')}.")


def environment(run: RunFiles) -> str:
    """What the run ran on, and the command that does it again."""
    facts = run.environment
    ranks, place = facts.get("ranks", 1), run.path.absolute()
    command = f"imgzoo {f'launch -n {ranks} ' if ranks > 1 else ''}train"
    command += f" --config {shell_word(str(place / 'config.toml'))} --output {shell_word(f'{place}-again')}"
    if facts.get("folder"):  # where relative paths of the data begin
        command = f"cd {shell_word(facts['folder'])} && {command}"
    again = f'<p><code id="again">{text(command)}</code> <button type="button" data-copy="again">Copy</button></p>'
    rows = [
        (name, facts[name]) for name in ("device", "ranks", "threads", "python", "torch", "platform") if name in facts
    ]
    rows += [(name, version) for name, version in (facts.get("packages") or {}).items()]
    found = table(("", ""), rows, words=(0, 1)) or note(run.says("environment.json", "What it ran on"))
    return f"<h3>To repeat this run</h3>{again}<h3>What it ran on</h3>{found}"
