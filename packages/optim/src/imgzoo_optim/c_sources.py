"""The C code of this package, as `hatch_build.py` compiles it into the wheel. Imports nothing of the package."""

from __future__ import annotations

import ast
import runpy
from collections.abc import Iterator
from pathlib import Path


def sources() -> Iterator[str]:
    """Each text that is a library of its own: the factored step, and the loop of every rule in all its forms."""
    here = Path(__file__).parent
    yield (here / "rules" / "factored.c").read_text(encoding="utf-8")
    kernel = runpy.run_path(str(here / "kernel.py"))["Kernel"]
    for file in sorted((here / "rules").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Kernel":
                rule = kernel(*map(ast.literal_eval, node.args))
                yield from map(rule.source, (True, False))
                if rule.step:
                    yield rule.rows()
