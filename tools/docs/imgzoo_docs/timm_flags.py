"""The flags of timm's train.py beside ours, from `timm_flags.toml`; every flag of ours is looked up in the command."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click

from imgzoo.registry import registry

from .markdown import code, plain, table

FILE = Path(__file__).with_name("timm_flags.toml")


def read() -> dict[str, dict[str, str]]:
    """Section -> flag of theirs -> our flags and words about them; "-" in front says that there is none, and why."""
    return tomllib.loads(FILE.read_text())


def flags() -> set[str]:
    """Every flag of `imgzoo train`, without those that switch off."""
    command = registry("commands").resolve("train").load()
    return {flag for each in command.params if isinstance(each, click.Option) for flag in (*each.opts,
            *each.secondary_opts)}  # fmt: skip


def unknown() -> list[str]:
    """What the file calls a flag of ours and the command does not know."""
    told = " ".join(ours for section in read().values() for ours in section.values() if not ours.startswith("- "))
    return sorted({flag for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", told)} - flags())


def compared() -> str:
    parts = []
    for title, rows in read().items():
        body = [(code(theirs), shown(ours)) for theirs, ours in rows.items()]
        parts.append(f"### {title}\n\n{table(('timm', 'imgzoo train'), body)}")
    return "\n\n".join(parts)


def shown(ours: str) -> str:
    """Flags and settings as code, the rest as prose."""
    if ours.startswith("- "):
        return f"none: {plain(ours[2:])}"
    return re.sub(r"(--set [\w.]+=[^\s]*[\w\]]|--[a-z][\w-]*(?: (?:[A-Z]+|\d[\d.,]*\d)\b)?)", r"`\1`", ours)
