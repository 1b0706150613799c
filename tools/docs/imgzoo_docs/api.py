"""A page of the API for each package: every public name, where it is defined."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from imgzoo.registry import registry

from .markdown import code, first_paragraph, plain, table

CORE = ("imgzoo", "imgzoo.model", "imgzoo.features", "imgzoo.plugin", "imgzoo.registry", "imgzoo.loading",
        "imgzoo.catalog", "imgzoo.query", "imgzoo.testing", "imgzoo.errors", "imgzoo.options",
        "imgzoo.groups")  # fmt: skip
"""Public modules of the core, the front door first."""
INDEX = """# API

A page for each distribution. Shapes stand in the docstrings: a map is (B, C, H, W), tokens are (B, N, C).

"""
DOORS = {"optim": "imgzoo_optim", "data": "imgzoo_data", "train": "imgzoo_train"}


def pages() -> dict[str, str]:
    written = {"core": modules("imgzoo-core", CORE)}
    written["layers"] = layers()
    for plugin in ("archs-cnn", "archs-transformer", "archs-efficientnet"):
        written[plugin] = networks(plugin)
    written |= {name: modules(f"imgzoo-{name}", (door,)) for name, door in DOORS.items()}
    written["timm"] = standing_in()
    rows = [(f"[imgzoo-{name}]({name}.md)", code(importable(name)), plain(first_paragraph(doc(importable(name)))))
            for name in written]  # fmt: skip
    index = INDEX + table(("distribution", "import", "what it brings"), rows) + "\n"
    return {"api/index.md": index} | {f"api/{name}.md": text for name, text in written.items()}


def importable(name: str) -> str:
    return "imgzoo" if name == "core" else f"imgzoo_{name.replace('-', '_')}"


def doc(module: str) -> str:
    return inspect.getdoc(importlib.import_module(module)) or ""


def modules(title: str, names: Iterable[str]) -> str:
    """Modules one after another, each with what it offers under its own name."""
    parts, shown = [f"# {title}"], set()
    for name in names:
        module = importlib.import_module(name)
        found = [path for key in public(module) if (path := home(module, key)) not in shown]
        shown |= {*found}
        if found:
            parts += [f"## {name}", plain(first_paragraph(module.__doc__)), *map(entry, found)]
    return "\n\n".join(parts) + "\n"


def public(module: ModuleType) -> list[str]:
    """Names that a module offers: its `__all__`, or what it defines itself."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [key for key, value in vars(module).items() if not key.startswith("_")
                 and getattr(value, "__module__", "") == module.__name__]  # fmt: skip
    return [name for name in names if name != "__version__" and documented(getattr(module, name))]


def documented(value: Any) -> bool:
    return (inspect.isclass(value) or inspect.isroutine(value)) and bool(inspect.getdoc(value))


def home(module: ModuleType, name: str) -> str:
    """Full path of the place where a name is defined."""
    value = getattr(module, name)
    return f"{value.__module__}.{value.__qualname__}"


def entry(path: str) -> str:
    return f"::: {path}"


def layers() -> str:
    import imgzoo_layers

    parts = ["# imgzoo-layers", plain(first_paragraph(imgzoo_layers.__doc__)), "[A line about each](../layers.md)."]
    offered = set(imgzoo_layers.__all__)
    for info in pkgutil.iter_modules(imgzoo_layers.__path__):
        module = importlib.import_module(f"imgzoo_layers.{info.name}")
        own = [key for key, value in vars(module).items() if key in offered and documented(value)
               and value.__module__ == module.__name__]  # fmt: skip
        if own:
            parts += [f"## {info.name}", plain(first_paragraph(module.__doc__))]
            parts += [entry(f"{module.__name__}.{key}") for key in own]
    return "\n\n".join(parts) + "\n"


def networks(plugin: str) -> str:
    """The class or function behind every family of a package."""
    specs = sorted((spec for spec in registry("models").specs() if spec.plugin == plugin), key=lambda spec: spec.family)
    targets = dict.fromkeys((spec.target, spec.family) for spec in specs)
    parts = [f"# imgzoo-{plugin}", "Every network has the methods of [ImageModel](core.md): `forward`, "
             "`forward_features`, `forward_head`, `forward_intermediates`, `reset_classifier`, ..."]  # fmt: skip
    for family in dict.fromkeys(family for _, family in targets):
        parts.append(f"## {family}\n\nVariants, weights and options: [{family}](../models/{family}.md).")
        own = dict.fromkeys(target.replace(":", ".") for target, each in targets if each == family)
        parts += [f"::: {path}\n    options:\n      members: [forward_features]" for path in own if shows(path)]
    return "\n\n".join(parts) + "\n"


def shows(path: str) -> bool:
    module, _, name = path.rpartition(".")
    return documented(getattr(importlib.import_module(module), name))


def standing_in() -> str:
    """The names of imgzoo-timm by submodule, since they are looked up when they are used."""
    import imgzoo_timm

    parts = [
        "# imgzoo-timm",
        plain(first_paragraph(imgzoo_timm.__doc__)),
        "[Coming from timm](../from-timm.md) shows how to use it. Names and signatures are those of timm 1.0.31.",
        "::: imgzoo_timm.standin.install",
        "::: imgzoo_timm.standin.uninstall",
    ]
    for package in ("models", "layers", "data", "optim", "scheduler", "loss", "utils"):
        module = importlib.import_module(f"imgzoo_timm.{package}")
        names = [name for name in dir(module) if not name.startswith("_")]
        parts += [f"## imgzoo_timm.{package}", ", ".join(map(code, sorted(names)))]
    return "\n\n".join(parts) + "\n"
