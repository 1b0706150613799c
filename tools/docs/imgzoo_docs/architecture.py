"""The picture of the repository: which package imports which, drawn from the imports themselves."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from .markdown import code, table

ROOT = Path(__file__).parents[3]
WIDTH, HEIGHT, GAP, SPACE = 210, 46, 64, 24


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


def rows() -> list[list[str]]:
    """Packages in rows from the top down: each above all that it imports, as low as that allows."""
    order = [name for row in layers() for name in row]
    depth: dict[str, int] = {}
    for name in reversed(order):
        depth[name] = max((depth[used] + 1 for user, used in imports() if user == name), default=0)
    return [[name for name in order if depth[name] == level] for level in range(max(depth.values()), -1, -1)]


def direct() -> list[tuple[str, str]]:
    """Pairs that import, without those that a third package connects as well."""
    pairs = imports().keys()
    return sorted(pair for pair in pairs if not any((pair[0], each) in pairs and (each, pair[1]) in pairs
                  for row in layers() for each in row))  # fmt: skip


def places() -> dict[str, tuple[float, float]]:
    """Middle of each box: the broadest row evenly, the others near what they are tied to, none over another."""
    drawn, spot = rows(), {}
    broadest = max(range(len(drawn)), key=lambda index: len(drawn[index]))
    across = {name: (WIDTH + SPACE) * (index + 0.5) for index, name in enumerate(drawn[broadest])}
    for index in (*range(broadest - 1, -1, -1), *range(broadest + 1, len(drawn))):
        tied = {name: [across[other] for pair in direct() if name in pair for other in pair if other in across]
                for name in drawn[index]}  # fmt: skip
        across |= apart({name: fmean(found) for name, found in tied.items()})
    for index, row in enumerate(drawn):
        for name in row:
            spot[name] = across[name], HEIGHT / 2 + 8 + index * (HEIGHT + GAP)
    return spot


def apart(wanted: dict[str, float]) -> dict[str, float]:
    """Places in the order of those wanted, a box and a space from each other, around the same middle."""
    placed = dict(sorted(wanted.items(), key=lambda item: item[1]))
    for left, right in pairwise(placed):
        placed[right] = max(placed[right], placed[left] + WIDTH + SPACE)
    moved = fmean(placed.values()) - fmean(wanted.values())
    return {name: place - moved for name, place in placed.items()}


def picture() -> str:
    """An SVG: a box for each package, a line for each pair that imports, the thicker the more often."""
    spot, lines, boxes = places(), [], []
    for user, used in direct():
        (x1, y1), (x2, y2), count = spot[user], spot[used], imports()[user, used]
        lines.append(f'<line x1="{x1:.0f}" y1="{y1 + HEIGHT / 2:.0f}" x2="{x2:.0f}" y2="{y2 - HEIGHT / 2:.0f}" '
                     f'stroke="currentColor" stroke-opacity="0.4" stroke-width="{min(7.0, 1 + count / 60):.1f}"><title>'
                     f"{user} imports {used} {count} times</title></line>")  # fmt: skip
    for name, (x, y) in spot.items():
        boxes.append(f'<rect x="{x - WIDTH / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
                     f'fill="#00897b"/><text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" fill="#fff" '
                     f'font-size="15">{name}</text>')  # fmt: skip
    broad, high = max(x for x, _ in spot.values()) + WIDTH / 2, max(y for _, y in spot.values()) + HEIGHT / 2 + 8
    drawing = "".join(lines + boxes)
    size = f'width="{broad:.0f}" height="{high:.0f}" viewBox="0 0 {broad:.0f} {high:.0f}"'
    label = 'role="img" aria-label="Packages of imgzoo and their imports"'
    return f'<figure><svg {size} {label} font-family="sans-serif">{drawing}</svg></figure>'


def counts() -> str:
    """The same in numbers: import statements of a row's package that name a column's."""
    names = [name for row in layers() for name in row]
    used = [name for name in names if any(pair[1] == name for pair in imports())]
    body = [(code(user), *(imports()[user, name] or "" for name in used)) for user in names if user != "imgzoo_layers"]
    return table(("", *map(code, used)), body)
