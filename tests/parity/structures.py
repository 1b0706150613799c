"""One variant of every distinct structure of a family: together they run every branch of its file.

`packages/archs-*/tests/structures/FAMILY.json` holds their `names`; those compared in `double` precision, because
rounding in float32 adds up to more than the bound, on either side; `sizes`, where the peer takes certain sizes only or
a network is slow; options that make the smallest quick to check (`shrunk`); and those that all are built with, here
and in the peer, because they are too large (`reduced`). `"peer": false` marks a family that the peer lacks: the
conformance kit alone proves it.
"""

import json
from pathlib import Path
from typing import Any

PACKAGES = Path(__file__).parents[2] / "packages"
ROWS = {path.stem: json.loads(path.read_text()) for path in sorted(PACKAGES.glob("archs-*/tests/structures/*.json"))}
STRUCTURES: dict[str, list[str]] = {family: row["names"] for family, row in ROWS.items()}
SHRUNK: dict[str, dict[str, Any]] = {family: row["shrunk"] for family, row in ROWS.items() if "shrunk" in row}
REDUCED: dict[str, dict[str, Any]] = {
    name: row["reduced"] for row in ROWS.values() if "reduced" in row for name in row["names"]
}
COMPARED = {family: names for family, names in STRUCTURES.items() if ROWS[family].get("peer", True)}
DOUBLE = {name for row in ROWS.values() for name in row.get("double", ())}
SIZES = {name: tuple(sizes) for row in ROWS.values() for name, sizes in row.get("sizes", {}).items()}
