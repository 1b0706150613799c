"""`report.html`: one offline file with curves, confusion, worst mistakes, configuration, environment, and a verdict."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from imgzoo.errors import ImgzooError
from imgzoo_train.config.settings import Config
from imgzoo_train.files import storage

from .folder import RunFolder

COLORS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1f2937}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse}
td,th{padding:.15rem .6rem;border-bottom:1px solid #e5e7eb;text-align:right;font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left}.charts{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0}figcaption{font-size:.85rem;color:#4b5563}pre{background:#f3f4f6;padding:.8rem;overflow-x:auto}
.grid{display:flex;flex-wrap:wrap;gap:.8rem}.grid img{width:96px;height:96px;object-fit:contain;background:#f3f4f6;
image-rendering:pixelated}.grid figure{width:7.5rem;overflow-wrap:anywhere}
"""
MOST_CLASSES = 40


def write_report(folder: RunFolder, config: Config, summary: Mapping[str, Any], last: Any, sources: Any) -> None:
    """Write `report.html` from the run folder's metrics and the last evaluation."""
    rows = folder.rows()
    names = [str(name) for name in sources.names]
    parts = [
        f"<h1>{escape(config.model.name)} on {escape(config.data.source)}</h1>",
        f"<p>{escape(verdict(rows))}</p>",
        table([("metric", "best")], _figures(summary)),
        "<h2>Curves</h2>",
        f'<div class="charts">{"".join(charts(rows))}</div>',
    ]
    if last is not None and hasattr(last.scores, "confusion"):
        parts.append(confusion_table(last.scores, names))
        parts.append(mistakes(last.worst, sources, names))
    environment = (folder.path / "environment.json").read_text(encoding="utf-8")
    parts += ["<h2>Data</h2>", f"<pre>{escape(str(sources.splits))}</pre>"]
    parts += ["<h2>Configuration</h2>", f"<pre>{escape(config.dump())}</pre>"]
    parts += ["<h2>Environment</h2>", f"<pre>{escape(environment)}</pre>"]
    storage.replace_text(folder.path / "report.html", page("".join(parts), f"imgzoo: {config.model.name}"))


def page(body: str, title: str) -> str:
    """A whole HTML page that loads nothing."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def _figures(summary: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in summary["best"].items():
        yield name, f"{value:.4g}" if name != "n" else str(int(value))
    yield "best step", str(summary["best_step"])
    yield "best weights", str(summary["best_weights"])
    yield "seconds", f"{summary['seconds']:.0f}"


def table(head: Sequence[Sequence[str]], rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table; every cell is escaped."""

    def line(cells: Sequence[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + "".join(line(row, "th") for row in head) + "".join(line(row, "td") for row in rows) + "</table>"


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """One sentence on what bounded the run: loading, evaluation, or the model."""
    training = [row for row in rows if row["kind"] == "train" and row.get("images_per_second")]
    if not training:
        return "The run has no training rows yet."
    spent = [row["images"] / row["images_per_second"] for row in training]
    waited = sum(row["data_wait"] * seconds for row, seconds in zip(training, spent))
    trained, scored = sum(spent), sum(row.get("eval_seconds", 0.0) for row in rows)
    rate = sum(row["images"] for row in training) / max(1e-9, trained)
    share = waited / max(1e-9, trained)
    text = f"Training ran at {rate:.0f} images a second and waited {share:.0%} of that time for data. "
    if share > 0.3:
        return text + "Loading bounded the run: give it more --workers, or smaller images on disk."
    if scored > trained:
        return text + "Evaluation took longer than training: raise --eval-every."
    low = "--precision bf16" if computes_bfloat16() else "fewer layers with --freeze"
    return text + f"The model bounded the run: a smaller one, {low} or --compile would help."


def computes_bfloat16() -> bool:
    """Whether there is an accelerator, or a processor with instructions for bfloat16."""
    import torch

    if torch.accelerator.is_available():
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def charts(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Curves of the loss, the scores, the learning rate and the speed."""
    training = [row for row in rows if row["kind"] == "train"]
    scored = [row for row in rows if row["kind"] == "eval"]
    names = list(dict.fromkeys(name for row in scored for name in row))
    losses = {"training": [(row["epoch"], row["loss"]) for row in training if "loss" in row]}
    losses |= {name: [(row["epoch"], row[name]) for row in scored if name in row] for name in names if "loss" in name}
    scores = [name for name in names if name.startswith(("top1", "map", "r2"))]
    yield chart("Loss", losses)
    yield chart("Score", {name: [(row["epoch"], row[name]) for row in scored if name in row] for name in scores})
    yield chart("Learning rate", {"lr": [(row["epoch"], row["lr"]) for row in training]})
    yield chart("Images a second", {"training": [(row["epoch"], row["images_per_second"]) for row in training]})


def chart(title: str, curves: Mapping[str, Sequence[tuple[float, float]]], width: int = 440, height: int = 220) -> str:
    """Curves over the epochs as an SVG drawing; points that are not numbers are left out."""
    kept = {name: [(x, y) for x, y in points if y == y and abs(y) != float("inf")] for name, points in curves.items()}
    points = [point for line in kept.values() for point in line]
    if not points:
        return ""
    left, bottom, top = 54, 28, 12
    low, high = min(y for _, y in points), max(y for _, y in points)
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    span, rise = max(1e-12, last - first), max(1e-12, high - low)

    def place(x: float, y: float) -> str:
        across = left + (x - first) / span * (width - left - 10)
        return f"{across:.1f},{height - bottom - (y - low) / rise * (height - bottom - top):.1f}"

    drawn = []
    for color, line in zip(COLORS, kept.values()):
        path = " ".join(place(x, y) for x, y in line)
        drawn.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.6" points="{path}"/>')
        drawn += [f'<circle r="2" fill="{color}" cx="{p.split(",")[0]}" cy="{p.split(",")[1]}"/>' for p in path.split()]
    labels = [
        (left - 4, top + 8, "end", f"{high:.3g}"),
        (left - 4, height - bottom, "end", f"{low:.3g}"),
        (left, height - 8, "start", f"epoch {first:.3g}"),
        (width - 10, height - 8, "end", f"{last:.3g}"),
    ]
    texts = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{a}" font-size="11">{escape(t)}</text>' for x, y, a, t in labels
    )
    legend = ", ".join(f'<span style="color:{color}">{escape(name)}</span>' for color, name in zip(COLORS, kept))
    return (
        f'<figure><svg width="{width}" height="{height}" role="img" aria-label="{escape(title)}">'
        f'<rect x="{left}" y="{top}" width="{width - left - 10}" height="{height - bottom - top}" fill="none" '
        f'stroke="#d1d5db"/>{"".join(drawn)}{texts}</svg><figcaption>{escape(title)}: {legend}</figcaption></figure>'
    )


def confusion_table(scores: Any, names: Sequence[str]) -> str:
    """Rows are true classes, columns answers; with many classes the most confused pairs instead."""
    matrix = [[int(cell) for cell in row] for row in scores.confusion.tolist()]
    label = list(names) if len(names) == len(matrix) else [str(index) for index in range(len(matrix))]
    classes = [
        (name, row["n"], f"{row['recall']:.1f}", f"{row['precision']:.1f}")
        for name, row in zip(label, scores.per_class())
    ]
    parts = ["<h2>Classes</h2>"]
    if len(matrix) <= MOST_CLASSES:
        parts.append(table([("true \\ answer", *label)], [(name, *row) for name, row in zip(label, matrix)]))
    pairs = sorted(
        (
            (count, label[i], label[j])
            for i, row in enumerate(matrix)
            for j, count in enumerate(row)
            if i != j and count
        ),
        reverse=True,
    )
    if pairs:
        parts.append("<h2>Most confused</h2>")
        parts.append(table([("true", "answer", "images")], [(a, b, count) for count, a, b in pairs[:10]]))
    parts.append("<h2>Per class</h2>")
    worst = sorted(classes, key=lambda row: float(row[2]))[:MOST_CLASSES]
    parts.append(table([("class", "images", "recall %", "precision %")], worst))
    return "".join(parts)


def mistakes(worst: Sequence[Mapping[str, float]], sources: Any, names: Sequence[str]) -> str:
    """Thumbnails of the validation images with the largest loss."""
    figures = []
    for row in worst:
        image = thumbnail(sources.validation, int(row["index"]))
        true, answer = (_name(names, int(row[key])) for key in ("target", "predicted"))
        text = f"{true}, taken for {answer}" if true != answer else f"{true}, unsure"
        picture = f'<img alt="" src="data:image/png;base64,{image}">' if image else ""
        figures.append(f"<figure>{picture}<figcaption>{escape(text)} (loss {row['loss']:.2f})</figcaption></figure>")
    return f'<h2>Worst mistakes</h2><div class="grid">{"".join(figures)}</div>' if figures else ""


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if 0 <= index < len(names) else str(index)


def thumbnail(source: Any, index: int, size: int = 96) -> str:
    """A sample as a small base64 PNG; empty when it cannot be read."""
    from PIL import Image

    from imgzoo_data import DataConfig, create_transform

    prepare = create_transform(DataConfig((3, size, size), crop_pct=1.0, crop_mode="border"))
    try:
        pixels = prepare.pixels(source[index].data)
    except (ImgzooError, OSError, ValueError):
        return ""
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
