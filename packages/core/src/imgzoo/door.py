"""Packages whose public names are imported when they are first used. No torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_door(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose public names stand in the modules that `homes` says.

    A home in a distribution that is not installed is a `MissingDependencyError` that says what to install.
    `__version__` is that of the package's distribution.
    """

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from imgzoo.discovery.distributions import version

            return version("imgzoo-core" if package == "imgzoo" else package)
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        try:
            module = importlib.import_module(home)
        except ModuleNotFoundError as error:
            top = home.partition(".")[0]
            if error.name != top:
                raise
            from imgzoo.errors import MissingDependencyError

            distribution = top.replace("_", "-")
            message = f"{package}.{name} comes with {distribution}: pip install {distribution}"
            raise MissingDependencyError(message) from error
        return getattr(module, name)

    def __dir__() -> list[str]:
        return sorted(sys.modules[package].__all__)

    return __getattr__, __dir__
