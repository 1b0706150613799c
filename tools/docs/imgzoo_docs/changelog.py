"""The changelogs of all distributions on one page."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PACKAGES = Path(__file__).parents[3] / "packages"


def page() -> str:
    parts = ["# Changelog", "Each distribution has its own version; [releases](releases.md) says how they move."]
    for file in sorted(PACKAGES.glob("*/CHANGELOG.md")):
        project = tomllib.loads(file.with_name("pyproject.toml").read_text())["project"]
        text = re.sub(r"^# .*\n+", "", file.read_text())
        parts += [f"## {project['name']}", re.sub(r"^## (.*)$", r"### \1", text, flags=re.MULTILINE).strip()]
    return "\n\n".join(parts) + "\n"
