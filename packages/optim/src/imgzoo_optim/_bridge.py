"""A plugin that brings the optimizers of the package `pytorch-optimizer`, under qualified names, where it is installed.

The names are read from the list in the package's own source, as text, so that listing them imports nothing.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from imgzoo.plugin import ComponentSpec, hookimpl

IMGZOO_API = (1, 0)
PACKAGE = "pytorch_optimizer"
LIST = "OPTIMIZER_LIST"


def class_names(source: str) -> list[str]:
    """Names in the package's list of optimizer classes that it defines itself."""
    tree = ast.parse(source)
    own = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE)
        for alias in node.names
    }
    listed: set[str] = set()
    for node in tree.body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == LIST and isinstance(node, ast.AnnAssign) and node.value:
            listed = {item.id for item in ast.walk(node.value) if isinstance(item, ast.Name)}
    return sorted(own & listed)


@hookimpl
def imgzoo_optimizers():
    found = importlib.util.find_spec(PACKAGE)
    path = Path(found.origin).parent / "optimizer" / "__init__.py" if found and found.origin else None
    if path is None or not path.exists():
        return []
    names = class_names(path.read_text(encoding="utf-8"))
    return [
        ComponentSpec(name.lower(), f"imgzoo_optim.bridge:{name}", {}, f"pytorch-optimizer's {name}") for name in names
    ]
