"""Recipes: named, versioned settings as TOML files. `NAME` is the newest version, `NAME@1` a fixed one. No torch."""

from __future__ import annotations

import difflib
from importlib.resources import files
from typing import Any

from imgzoo.errors import UnknownNameError
from imgzoo_train.config.settings import parse


def recipe_files() -> dict[str, str]:
    """`name@version` -> text of every recipe."""
    found: dict[str, str] = {}
    for entry in files(__name__).iterdir():
        if entry.name.endswith(".toml"):
            found[entry.name.removesuffix(".toml")] = entry.read_text(encoding="utf-8")
    return dict(sorted(found.items()))


def load_recipe(name: str) -> dict[str, Any]:
    """Settings of a recipe; raises `UnknownNameError` with near names."""
    table = recipe_files()
    versions = sorted(
        (key for key in table if key.partition("@")[0] == name), key=lambda key: int(key.partition("@")[2])
    )
    key = name if name in table else versions[-1] if versions else ""
    if not key:
        names = sorted({each.partition("@")[0] for each in table})
        near = difflib.get_close_matches(name, names, n=3) or names
        raise UnknownNameError(f"there is no recipe '{name}'; there are {', '.join(near)}")
    settings = parse(table[key], f"recipe {key}")
    settings.pop("about", None)
    return settings


def describe_recipes() -> str:
    """A line for each recipe: name, what it is for, cost, expected accuracy."""
    lines = []
    for name, text in recipe_files().items():
        about = parse(text, name)["about"]
        lines.append(f"{name:18} {about['what']}; cost: {about['cost']}; expect: {about['expect']}")
        lines.append(f"{'':18} {about['command']}")
    return "\n".join(lines)
