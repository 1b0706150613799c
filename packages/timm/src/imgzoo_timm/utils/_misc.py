"""Small helpers of scripts. No torch."""

from __future__ import annotations

import argparse
import ast
import re
from typing import Any


def natural_key(string_: str) -> list[Any]:
    """A key that sorts numbers in names by value."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", string_.lower())]


def add_bool_arg(parser: Any, name: str, default: bool = False, help: str = "") -> None:
    """`--name` and `--no-name`."""
    group = parser.add_mutually_exclusive_group(required=False)
    dest = name.replace("-", "_")
    group.add_argument(f"--{name}", dest=dest, action="store_true", help=help)
    group.add_argument(f"--no-{name}", dest=dest, action="store_false", help=help)
    parser.set_defaults(**{dest: default})


class ParseKwargs(argparse.Action):
    """`--opt a=1 b=text` as a table of Python values."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        table = {}
        for value in values:
            key, _, text = value.partition("=")
            try:
                table[key] = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                table[key] = text
        setattr(namespace, self.dest, table)
