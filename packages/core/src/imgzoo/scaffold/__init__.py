"""The skeleton of a third-party plugin, as `imgzoo new-plugin` writes it. No torch."""

from __future__ import annotations

import re
from pathlib import Path

from imgzoo.discovery.find import RESERVED
from imgzoo.errors import UsageError

FILES = {  # path in the plugin -> template; {{...}} is filled in both
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "CHANGELOG.md": "CHANGELOG.md.txt",
    ".gitignore": "gitignore.txt",
    "src/{{package}}/__init__.py": "init.py.txt",
    "src/{{package}}/py.typed": "",
    "src/{{package}}/_plugin.py": "plugin.py.txt",
    "src/{{package}}/{{ident}}_net.py": "net.py.txt",
    "src/{{package}}/catalog/{{ident}}_net.json": "catalog.json.txt",
    "tests/test_{{ident}}.py": "test.py.txt",
}
LIBRARIES = frozenset({"layers", "timm"})
"""Distributions of imgzoo that are no plugins."""
PLUGIN = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
TEMPLATES = Path(__file__).parent / "templates"


def words(name: str) -> dict[str, str]:
    """What the templates say for a plugin's name; an unfit name is a `UsageError`."""
    plugin = name.removeprefix("imgzoo-")
    if not PLUGIN.fullmatch(plugin):
        raise UsageError(f"'{name}' is no plugin name: take small letters, digits and single '-', as in my-zoo")
    if plugin in RESERVED | LIBRARIES:
        raise UsageError(f"the plugin name '{plugin}' belongs to imgzoo: take another")
    ident = plugin.replace("-", "_")
    title = "".join(part.capitalize() for part in plugin.split("-"))
    return {"plugin": plugin, "dist": f"imgzoo-{plugin}", "package": f"imgzoo_{ident}", "ident": ident, "class": title}


def render(name: str) -> dict[str, str]:
    """The plugin's files by path."""
    filling = words(name)
    return {
        _fill(path, filling): _fill((TEMPLATES / template).read_text("utf-8"), filling) if template else ""
        for path, template in FILES.items()
    }


def _fill(text: str, filling: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filling[match[1]], text)


def write_plugin(name: str, folder: Path) -> Path:
    """Write the plugin into `folder/imgzoo-NAME` and return that path; what is there already is never overwritten."""
    files = render(name)
    root = folder / words(name)["dist"]
    if root.exists():
        raise UsageError(f"{root} is there already: take another name, or another folder with --dir")
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8", newline="\n")
    return root
