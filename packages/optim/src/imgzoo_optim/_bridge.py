"""A plugin that brings the optimizers of the package `pytorch-optimizer`, under qualified names, where it is installed.

The names are read from the package's own `__init__.py` as text, so that listing them imports nothing.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from imgzoo.plugin import ComponentSpec, hookimpl

IMGZOO_API = (1, 0)
PACKAGE = "pytorch_optimizer"


def class_names(folder: Path) -> list[str]:
    """Classes that the package's optimizer folder re-exports, except its own machinery."""
    source = folder / "optimizer" / "__init__.py"
    if not source.exists():
        return []
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}.optimizer"):
            names.update(alias.asname or alias.name for alias in node.names)
    return sorted(name for name in names if (name[0].isupper() and not name.isupper()) or name in KEPT)


KEPT = frozenset({"ADOPT", "LARS", "SGDP", "SGDW", "MADGRAD", "MARS", "QHM", "SOAP", "SWATS", "TAM", "VSGD"})


@hookimpl
def imgzoo_optimizers():
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return []
    return [
        ComponentSpec(name.lower(), f"imgzoo_optim.bridge:{name}", {}, f"pytorch-optimizer's {name}")
        for name in class_names(Path(found.origin).parent)
    ]
