"""Standing in for timm: `import timm` and everything below it answer with this distribution. No torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from email.message import Message
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution
from types import ModuleType
from typing import Any

from imgzoo.errors import UsageError

from .version import __version__

NAME, HERE = "timm", __name__.partition(".")[0]


class Metadata(Distribution):
    """What `importlib.metadata` tells of timm while this stands in."""

    def read_text(self, filename: str) -> str | None:
        if filename != "METADATA":
            return None
        told = Message()
        told["Metadata-Version"], told["Name"], told["Version"] = "2.1", NAME, __version__
        return told.as_string()

    def locate_file(self, path: Any) -> Any:
        return path


class StandIn:
    """Finds `timm` and its submodules: each is the module of the same path here."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != NAME and not name.startswith(f"{NAME}."):
            return None
        importlib.import_module(HERE + name[len(NAME) :])
        return ModuleSpec(name, Loader, is_package=True)  # type: ignore[arg-type]

    @staticmethod
    def find_distributions(context: Any = None) -> Iterator[Distribution]:
        name = getattr(context, "name", None)
        return iter([Metadata()] if name is None or name.lower() == NAME else [])


class Loader:
    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType | None:
        return None

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        name = module.__name__
        sys.modules[name] = importlib.import_module(HERE + name[len(NAME) :])


def install(force: bool = False) -> None:
    """Let `import timm` bring imgzoo from now on, in this process.

    Raises:
        UsageError: timm is imported already, or installed and `force` does not say that it may be hidden.
    """
    if any(finder is StandIn for finder in sys.meta_path):
        return
    loaded = sys.modules.get(NAME)
    if loaded is not None:
        raise UsageError("timm is imported already: call imgzoo_timm.install() before anything imports it")
    if not force and importlib.util.find_spec(NAME) is not None:
        raise UsageError("timm is installed here and would be hidden: say install(force=True), or --force, to hide it")
    sys.meta_path.insert(0, StandIn)  # type: ignore[arg-type]


def uninstall() -> None:
    """Let `import timm` mean what it meant before; modules imported meanwhile keep what they took."""
    for finder in [finder for finder in sys.meta_path if finder is StandIn]:
        sys.meta_path.remove(finder)
    for name in [name for name in sys.modules if name == NAME or name.startswith(f"{NAME}.")]:
        del sys.modules[name]
