"""The picture of the repository: which package imports which, drawn from the imports themselves."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from .markdown import code, table

ROOT = Path(__file__).parents[3]
WIDTH, HEIGHT, GAP = 210, 46, 64


@cache
def imports() -> Counter[tuple[str, str]]:
    """How many import statements of one package name another, those inside functions too, but for types alone not."""
    packages = {place.name: place for place in ROOT.glob("packages/*/src/*") if place.is_dir() and place.suffix == ""}
    found: Counter[tuple[str, str]] = Counter()
    for name, place in packages.items():
        for file in place.rglob("*.py"):
            for node in statements(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and not node.level:
                    targets = [node.module or ""]
                else:
                    targets = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                tops = {target.partition(".")[0] for target in targets} & packages.keys()
                found.update((name, top) for top in tops - {name})
    return found


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below a node, without what stands under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for other in child.orelse:
                yield from statements(other)
        else:
            yield from statements(child)


@cache
def layers() -> list[list[str]]:
    """Packages from the top down, as the import contract in pyproject.toml orders them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    order = next(each["layers"] for each in contracts if each["type"] == "layers")
    return [row.split(" | ") for row in order]


def picture() -> str:
    """An SVG: a box for each package, a line for each pair that imports, the thicker the more often."""
    place: dict[str, tuple[float, float]] = {}
    broad = max(map(len, layers())) * (WIDTH + 24)
    for depth, row in enumerate(layers()):
        for column, name in enumerate(row):
            place[name] = broad / 2 + (column - (len(row) - 1) / 2) * (WIDTH + 24), 30 + depth * (HEIGHT + GAP)
    lines, boxes = [], []
    for (user, used), count in sorted(imports().items()):
        (x1, y1), (x2, y2) = place[user], place[used]
        thick = min(6.0, 0.6 + count / 40)
        bend = 0.0 if abs(y2 - y1) <= HEIGHT + GAP or x1 != x2 else WIDTH * 0.75
        middle = f"{(x1 + x2) / 2 + bend:.0f} {(y1 + y2) / 2:.0f}"
        lines.append(f'<path d="M{x1:.0f} {y1 + HEIGHT / 2:.0f} Q{middle} {x2:.0f} {y2 - HEIGHT / 2:.0f}" fill="none" '
                     f'stroke="currentColor" stroke-opacity="0.35" stroke-width="{thick:.1f}"><title>{user} imports '
                     f"{used} {count} times</title></path>")  # fmt: skip
    for name, (x, y) in place.items():
        boxes.append(f'<rect x="{x - WIDTH / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
                     f'fill="#00897b"/><text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" fill="#fff" '
                     f'font-size="15">{name}</text>')  # fmt: skip
    high = 30 + (len(layers()) - 1) * (HEIGHT + GAP) + HEIGHT
    drawing = "".join(lines + boxes)
    return (f'<figure><svg viewBox="0 0 {broad} {high}" role="img" aria-label="Packages of imgzoo and their imports" '
            f'font-family="sans-serif">{drawing}</svg></figure>')  # fmt: skip


def counts() -> str:
    """The same in numbers: import statements of a row's package that name a column's."""
    names = [name for row in layers() for name in row]
    used = [name for name in names if any(pair[1] == name for pair in imports())]
    body = [(code(user), *(imports()[user, name] or "" for name in used)) for user in names if user != "imgzoo_layers"]
    return table(("", *map(code, used)), body)
