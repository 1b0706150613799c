"""Every setting of a run: its type, default and flag."""

from __future__ import annotations

import types
import typing
from typing import Any, Literal

from imgzoo_data.augmentations import AUGMENTATIONS
from imgzoo_train.config.flags import FLAGS
from imgzoo_train.config.recipes import recipe_files
from imgzoo_train.config.settings import Config, parse, rows

from .markdown import code, plain, table

INTRO = """# Configuration

A run is described by the settings below. They come, later over earlier, from defaults, a recipe, a TOML file
(`--config`), `--set KEY=VALUE` and flags; the resolved ones are saved as `config.toml` in the run folder, which repeats
the run: `imgzoo train --config runs/mine/config.toml --output runs/again`. A key that no section has is an error.

A setting without a flag is said with `--set`: `--set optim.options.nesterov=true`. Keys under `options` go to the
constructor of what is named beside them (`model.options` to the network, `loss.options` to the loss, ...).
"""
HEAD = ("key", "type", "default", "flag", "what it does")


def page() -> str:
    parts = [INTRO]
    defaults, kinds = Config(), rows()
    sections = list(dict.fromkeys(key.partition(".")[0] for key in kinds if "." in key))
    parts.append(table(HEAD, [row(key, kinds[key], getattr(defaults, key)) for key in kinds if "." not in key]))
    for section in sections:
        values = getattr(defaults, section)
        keys = [key for key in kinds if key.startswith(f"{section}.")]
        body = [row(key, kinds[key], getattr(values, key.partition(".")[2])) for key in keys]
        if section == "data":
            body += [augmentation(name, *told) for name, told in AUGMENTATIONS.items()]
        parts += [f"## {section}", plain((type(values).__doc__ or "").strip()), table(HEAD, body)]
    about = {name: parse(text, name)["about"] for name, text in recipe_files().items()}
    body = [(code(name), *(plain(told[key]) for key in ("what", "cost", "expect"))) for name, told in about.items()]
    parts += ["## Recipes", "`--recipe NAME` takes the newest version, `NAME@VERSION` one that stays as it is.",
              table(("recipe", "for", "cost", "expect"), body)]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def row(key: str, kind: Any, default: Any) -> tuple[str, str, str, str, str]:
    flag, help = FLAGS.get(key, ("", OWN.get(key, "")))
    shown = "" if default in (None, "", [], {}) else toml(default)
    return code(key), code(spelled(kind)), code(shown), code(flag), plain(help)


OWN = {
    "version": "version of this format",
    "data.augment": "augmentations as a table: the rows `data.augment.*` below",
    **{
        f"{section}.options": "options of the constructor" for section in ("model", "data", "optim", "schedule", "loss")
    },
}
"""What settings without a flag are."""


def augmentation(name: str, kind: Any, help: str) -> tuple[str, str, str, str, str]:
    shown = " | ".join(f'"{word}"' for word in kind) if isinstance(kind, tuple) else spelled(kind)
    return code(f"data.augment.{name}"), code(shown), "", code("--" + name.replace("_", "-")), plain(help)


def spelled(kind: Any) -> str:
    """A type as a user of TOML reads it."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return " | ".join(spelled(each) for each in inside if each is not types.NoneType)
    if origin is Literal:
        return " | ".join(f'"{word}"' for word in inside)
    if origin in (list, dict):
        return "table" if origin is dict else f"list of {spelled(inside[0])}"
    return {str: "text", int: "integer", float: "number", bool: "true | false"}.get(kind, str(kind))


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
