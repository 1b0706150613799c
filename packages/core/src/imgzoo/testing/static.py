"""Checks that import no torch: metadata, discovery, names, catalog rows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imgzoo.discovery.distributions import library
from imgzoo.licenses import is_known
from imgzoo.plugin import API
from imgzoo.registry import registry

from .outcome import Check, SkipCheck

NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
POISON = "raise ImportError('a plugin imported torch at discovery')\n"
SECONDS = 1.0
"""What importing the plugin module may cost; the bound is wide, since machines are noisy."""


def loads(info: Any) -> None:
    if info.state not in ("ok", "eager"):
        raise AssertionError(f"the plugin is '{info.state}': {info.reason}")


def torch_free(info: Any) -> None:
    """A new interpreter whose `torch` cannot be imported must still import the plugin module."""
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
    module = sys.modules.get(info.value.partition(":")[0])
    api = getattr(module, "IMGZOO_API", None)
    if not (isinstance(api, tuple) and len(api) == 2 and api[0] == API[0] and api[1] <= API[1]):
        raise AssertionError(f"IMGZOO_API is {api!r}; this core offers {API}")


def names_are_plain(info: Any) -> None:
    for spec in _models(info):
        if not NAME.fullmatch(spec.name):
            raise AssertionError(f"'{spec.name}' is no model name: lower case letters, digits and '_'")
        tags = [weights.tag for weights in spec.weights]
        if len(set(tags)) != len(tags):
            raise AssertionError(f"{spec.name} repeats a tag")


def targets_exist(info: Any) -> None:
    for kind in ("models", "optimizers", "schedulers", "losses", "transforms", "datasets", "commands"):
        for spec in registry(kind).specs():
            module = spec.target.partition(":")[0]
            if spec.plugin == info.name and find_spec(module) is None:
                raise AssertionError(f"{spec.name} points at {module}, which does not exist")


def licenses_stated(info: Any) -> None:
    for spec in _models(info):
        for weights in spec.weights:
            if weights.published and not is_known(weights.license):
                raise AssertionError(f"{spec.name}.{weights.tag} states no SPDX license ('{weights.license}')")


def weights_have_a_place(info: Any) -> None:
    for spec in _models(info):
        for weights in spec.weights:
            if not weights.published and weights.tag != "untrained":
                raise AssertionError(f"{spec.name}.{weights.tag} says neither url nor hf_hub_id")


def bounds_on_core(info: Any) -> None:
    """Both a lower and an upper bound, so that an incompatible core is refused at installation."""
    importlib_metadata = library()

    if not info.dist:
        raise SkipCheck("the plugin is not installed as a distribution")
    requires = importlib_metadata.requires(info.dist) or []
    line = next((r.replace(" ", "") for r in requires if re.match(r"imgzoo-core\b", r)), "")
    if ">=" not in line or "<" not in line.replace("<=", ""):
        raise AssertionError(f"requires '{line or 'no imgzoo-core'}'; give both bounds: imgzoo-core>=0.1,<1")


def typed(info: Any) -> None:
    package = info.value.partition(":")[0].partition(".")[0]
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not any((Path(place) / "py.typed").is_file() for place in places):
        raise AssertionError(f"{package} ships no py.typed")


def _models(info: Any) -> list[Any]:
    return [spec for spec in registry("models").specs() if spec.plugin == info.name]


CHECKS = [
    Check(fn.__name__, "static", fn)
    for fn in (loads, torch_free, api_declared, names_are_plain, targets_exist, licenses_stated,
               weights_have_a_place, bounds_on_core, typed)
]  # fmt: skip
