"""Checks that import no torch: metadata, discovery, names, catalog rows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imgzoo.discovery.distributions import library
from imgzoo.discovery.doctor import CHECKS as DOCTORS
from imgzoo.discovery.doctor import examine
from imgzoo.discovery.manager import manager
from imgzoo.licenses import is_known
from imgzoo.plugin import API
from imgzoo.registry import registry
from imgzoo.specs import CAPABILITIES

from .kit import added_weights
from .outcome import Check, SkipCheck

NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
POISON = "raise ImportError('a plugin imported torch at discovery')\n"
SECONDS = 1.0
"""What importing the plugin module may cost; the bound is wide, since machines are noisy."""


def loads(info: Any) -> None:
    """It is in use, and each of its hooks answered."""
    if info.state not in ("ok", "eager"):
        raise AssertionError(f"the plugin is '{info.state}': {info.reason}")


def torch_free(info: Any) -> None:
    """A new interpreter whose `torch` cannot be imported must still import the plugin module."""
    _installed(info)
    module = info.value.partition(":")[0]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("torch", "torchvision", "numpy"):
            (Path(folder) / f"{name}.py").write_text(POISON)
        path = os.pathsep.join([folder, *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
        )
    if done.returncode:
        raise AssertionError(f"importing {module} needs a heavy library: {done.stderr.strip().splitlines()[-1]}")


def api_declared(info: Any) -> None:
    api = getattr(_module(info), "IMGZOO_API", None)
    if not (isinstance(api, tuple) and len(api) == 2 and api[0] == API[0] and api[1] <= API[1]):
        raise AssertionError(f"IMGZOO_API is {api!r}; this core offers {API}")


def hooks_answer(info: Any) -> None:
    """A hook that declares things declares some: catalogs and tables are in the wheel."""
    silent = [name for name in info.hooks if info.items.get(name) == 0]
    if silent:
        raise AssertionError(f"{silent[0]} returns nothing: is what it reads in the wheel?")


def capabilities_are_known(info: Any) -> None:
    for spec in _models(info):
        unknown = sorted(spec.capabilities - CAPABILITIES)
        if unknown:
            known = ", ".join(sorted(CAPABILITIES))
            raise AssertionError(f"{spec.name} declares '{unknown[0]}', which nothing checks; there are {known}")


def names_are_plain(info: Any) -> None:
    for spec in _models(info):
        if not NAME.fullmatch(spec.name):
            raise AssertionError(f"'{spec.name}' is no model name: lower case letters, digits and '_'")
        tags = [weights.tag for weights in spec.weights]
        if len(set(tags)) != len(tags):
            raise AssertionError(f"{spec.name} repeats a tag")


def licenses_stated(info: Any) -> None:
    for spec, weights in _weights(info):
        if weights.published and not is_known(weights.license):
            raise AssertionError(f"{spec.name}.{weights.tag} states no SPDX license ('{weights.license}')")


def weights_have_a_place(info: Any) -> None:
    for spec, weights in _weights(info):
        if not weights.published and weights.tag != "untrained":
            raise AssertionError(f"{spec.name}.{weights.tag} says neither url nor hf_hub_id")


def bounds_on_core(info: Any) -> None:
    """Both a lower and an upper bound, so that an incompatible core is refused at installation."""
    _installed(info)
    if info.dist == "imgzoo-core":
        raise SkipCheck("the plugin is the core")
    requires = library().requires(info.dist) or []
    line = next((r.replace(" ", "") for r in requires if re.match(r"imgzoo-core\b", r)), "")
    if ">=" not in line or "<" not in line.replace("<=", ""):
        raise AssertionError(f"requires '{line or 'no imgzoo-core'}'; give both bounds: imgzoo-core>=0.1,<1")


def typed(info: Any) -> None:
    _installed(info)
    package = info.value.partition(":")[0].partition(".")[0]
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not any((Path(place) / "py.typed").is_file() for place in places):
        raise AssertionError(f"{package} ships no py.typed")


def _models(info: Any) -> list[Any]:
    return [spec for spec in registry("models").specs() if spec.plugin == info.name]


def _weights(info: Any) -> list[tuple[Any, Any]]:
    """(model, weights) of its own models, and of what it adds to others'."""
    own = [(spec, row) for spec in _models(info) for row in spec.weights if row.plugin in ("", info.name)]
    return own + added_weights(info.name)


def _module(info: Any) -> Any:
    return manager().hooks.get_plugin(info.name) or sys.modules.get(info.value.partition(":")[0])


def _installed(info: Any) -> None:
    if not info.dist:
        raise SkipCheck("the plugin is not installed as a distribution")


def _doctors(name: str) -> Callable[[Any], None]:
    """What a check of `imgzoo doctor` says of the plugin; a slow machine is not its fault."""

    def check(info: Any) -> None:
        levels = ("error",) if name == "plugins" else ("warning", "error")
        for row in examine(manager(), only=(name,)):
            if row.level in levels and row.subject == info.name:
                raise AssertionError(row.message)

    return check


CHECKS = [
    Check(fn.__name__, "static", fn)
    for fn in (loads, torch_free, api_declared, hooks_answer, capabilities_are_known,
               names_are_plain, licenses_stated, weights_have_a_place, bounds_on_core, typed)
] + [Check(f"doctor_{name}", "static", _doctors(name)) for name in DOCTORS]  # fmt: skip
