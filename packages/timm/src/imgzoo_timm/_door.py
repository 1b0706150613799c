"""Modules of the field's paths: what stands in them is a table, what it means stands elsewhere. No torch.

A table has a line for each path and home: the path below its package (`-` is the package itself), the module that holds
the names (`.` for one of this distribution) and the names, `theirs=ours` where ours differs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from imgzoo.errors import ImgzooError

ROOT = __name__.partition(".")[0]
Fallback = Callable[[str], Any]


class MissingName(ImgzooError, AttributeError):
    """A name of the field's library that has no counterpart here; the message tells our way."""


class MissingModule(ImgzooError, ModuleNotFoundError):
    """The same, where an import asks for it."""


class Package(ModuleType):
    """A package that keeps a name of its table where a path of the same name is imported: `layers.create_conv2d`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in rooms[self.__name__].homes):
            super().__setattr__(name, value)


class Room:
    """What one path shows: homes of names, then what `fallback` knows; the `advice` is told of anything else."""

    def __init__(self, path: str, advice: str, fallback: Fallback | None = None):
        self.path, self.advice, self.fallback = path, advice, fallback
        self.instead: Mapping[str, str] = {}
        self.homes: dict[str, tuple[str, str]] = {}
        self.known: Callable[[], Iterable[str]] = list  # what `fallback` has for those who ask for everything

    def find(self, name: str) -> Any:
        if name in self.homes:
            module, attribute = self.homes[name]
            return getattr(importlib.import_module(module), attribute)
        if name == "__all__":  # what `from timm.layers import *` brings
            return sorted({*self.homes, *self.known()})
        if f"{self.path}.{name}" in rooms:
            return importlib.import_module(f"{self.path}.{name}")
        if self.fallback is not None and not name.startswith("__"):
            found = self.fallback(name)
            if found is not None:
                return found
        raise MissingName(self.sentence(name))

    def sentence(self, name: str) -> str:
        advice = next((way for pattern, way in self.instead.items() if fnmatchcase(name.lower(), pattern)), self.advice)
        return f"{self.path} has no {name}: {advice}"

    def names(self) -> list[str]:
        inside = (path.rpartition(".") for path in rooms)
        return sorted({*self.homes, *(last for parent, _, last in inside if parent == self.path)})


rooms: dict[str, Room] = {}
"""The paths that this distribution has, by full name; those of packages on disk are among them."""


def furnish(
    package: str, table: str, advice: str, packages: Iterable[str] = (), fallback: Fallback | None = None,
    instead: Mapping[str, str] | None = None,
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:  # fmt: skip
    """`__getattr__` and `__dir__` of a package, which shows all names of its table; its paths become importable.

    `instead` has an advice of its own for names, in lower case, by their patterns.
    """
    own = rooms.setdefault(package, Room(package, advice, fallback))
    own.advice, own.fallback = advice, fallback
    for line in table.strip().splitlines():
        path, home, *names = line.split()
        module = ROOT + home if home.startswith(".") else home
        shown = [own]
        if path != "-":
            shown.append(rooms.setdefault(f"{package}.{path}", Room(f"{package}.{path}", advice)))
        for each in names:
            name, _, attribute = each.partition("=")
            for room in shown:
                room.homes.setdefault(name, (module, attribute or name))
            if path != "-":
                shown[1].homes[name] = (module, attribute or name)
    own.instead = instead or {}
    for path in {line.split()[0] for line in table.strip().splitlines()} - {"-"}:
        rooms[f"{package}.{path}"].instead = own.instead
    for name in packages:
        rooms.setdefault(f"{package}.{name}", Room(f"{package}.{name}", advice))
    sys.modules[package].__class__ = Package
    return own.find, own.names


def add_rooms(package: str, names: Iterable[str], advice: str, fallback: Callable[[str, str], Any]) -> None:
    """Further paths of a package, each of which answers by `fallback(path, name)`."""
    for name in names:
        room = rooms.setdefault(f"{package}.{name}", Room(f"{package}.{name}", advice))
        room.fallback = lambda wanted, name=name: fallback(name, wanted)


class Finder:
    """Finds the paths of the tables behind all other finders; what is missing is told in one sentence."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith(f"{ROOT}."):
            return None
        if name in rooms:
            return ModuleSpec(name, Loader, is_package=True)  # type: ignore[arg-type]
        parent, _, last = name.rpartition(".")
        importlib.import_module(parent)
        room = rooms.get(parent)
        if room is None or last.startswith("__"):
            return None
        raise MissingModule(room.sentence(last), name=last)


class Loader:
    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType | None:
        return None

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        room = rooms[module.__name__]
        namespace: Mapping[str, Any] = {"__getattr__": room.find, "__dir__": room.names}
        vars(module).update(namespace, __doc__=f"`{room.path.replace(ROOT, 'timm', 1)}` of the field, by imgzoo.")


if not any(finder is Finder for finder in sys.meta_path):
    sys.meta_path.append(Finder)  # type: ignore[arg-type]
