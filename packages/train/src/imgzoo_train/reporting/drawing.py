"""Figures as plain SVG, and a confusion matrix as a picture: what a page shows where no chart library draws them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

from imgzoo.page import text

from .figures import Figure, Line

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 290, 58, 12, 8, 40


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between `low` and `high`."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 12) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def svg(figure: Figure) -> str:
    """The figure in the colors of the stylesheet, with axes and a legend."""
    bars = any(each.kind == "bar" for each in figure.lines)
    x0, x1 = figure.range or _span([x for each in figure.lines for x in each.x])
    y0, y1 = figure.range or _span([y for each in figure.lines for y in each.y] + [0.0] * bars)
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return round(LEFT + (x - x0) / (x1 - x0) * wide, 1), round(TOP + (1 - (y - y0) / (y1 - y0)) * high, 1)

    parts = []
    for value in ticks(y0, y1):
        y = at(x0, value)[1]
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:.6g}</text>')
    for value in ticks(x0, x1):
        parts.append(f'<text x="{at(value, y0)[0]}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{value:.6g}</text>')
    parts.append(f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{wide}" height="{high}"/>')
    parts += [
        _drawn(each, [at(*point) for point in zip(each.x, each.y)], at(x0, max(y0, 0.0))[1]) for each in figure.lines
    ]
    middle = TOP + high / 2
    parts.append(f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 6}" text-anchor="middle">{text(figure.across)}</text>')
    parts.append(
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{text(figure.up)}</text>'
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(figure.title)}">{"".join(parts)}</svg>'


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Least and largest value with a little room."""
    low, high = min(values), max(values)
    room = (high - low) * 0.04 or max(abs(high) * 0.04, 1e-9)
    return low - room * (low != 0), high + room


def _drawn(line: Line, points: Sequence[tuple[float, float]], ground: float) -> str:
    color = f"var(--c{line.color})"
    if line.kind == "bar":
        width = max(2.0, (WIDTH - LEFT - RIGHT) / 15 - 3)
        return "".join(
            f'<rect x="{x - width / 2:.1f}" y="{min(y, ground)}" width="{width:.1f}" height="{abs(ground - y):.1f}" '
            f'style="fill:{color}" opacity=".75"/>'
            for x, y in points
        )
    if line.kind == "point":
        return "".join(f'<circle cx="{x}" cy="{y}" r="2.5" style="fill:{color}" opacity=".5"/>' for x, y in points)
    dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
    path = " ".join(f"{x},{y}" for x, y in points)
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="2" style="fill:{color}"/>' for x, y in points if len(points) <= 30)
    return f'<polyline points="{path}" style="fill:none;stroke:{color}" stroke-width="1.7"{dashes}/>{dots}'


def legend(figure: Figure) -> str:
    names = "".join(
        f'<span><i style="color:var(--c{each.color})"></i>{text(each.name)}</span>' for each in figure.lines
    )
    return f'<figcaption class="names">{names}</figcaption>' if len(figure.lines) > 1 else ""


def heat(size: int, rows: Sequence[int], columns: Sequence[int], counts: Sequence[int]) -> str:
    """A confusion matrix as a PNG for a page: right answers in one color, mistakes in another, dense by their share."""
    import numpy as np
    from PIL import Image

    true, given, count = (np.asarray(part, np.int64) for part in (rows, columns, counts))
    whole = np.bincount(true, weights=count, minlength=size)
    share = count / np.maximum(1, whole[true])
    wrong = true != given
    most = share[wrong].max() if wrong.any() else 1.0
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[true, given, :3] = np.where(wrong[:, None], (0xD2, 0x64, 0x1E), (0x00, 0x8F, 0x7E))
    pixels[true, given, 3] = 255 * np.sqrt(np.clip(np.where(wrong, share / most, share), 0, 1))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
