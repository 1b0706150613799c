"""What plugins hand to the core: frozen rows of data, with the implementation named as a string. No torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

from .errors import PluginLoadError
from .guard import attempt
from .text import told

NOTHING: Mapping[str, Any] = {}
CAPABILITIES = frozenset(["compile", "export", "script", "fx", "onnx", "output_stride", "set_input_size", "bf16"])
"""What a model may promise; each has a check of its name in the conformance kit."""


def load_target(target: str, plugin: str = "") -> Any:
    """Import `"package.module:attribute"` and return the attribute; raises `PluginLoadError` naming the plugin."""

    def load() -> Any:
        module, _, attribute = target.partition(":")
        return reduce(getattr, attribute.split("."), importlib.import_module(module))

    value, error = attempt(load)
    if error is not None:
        owner = f"plugin '{plugin}'" if plugin else "imgzoo"
        raise PluginLoadError(f"{owner} cannot load {target}: {told(error)}") from error
    return value


class WeightSpec(NamedTuple):
    """One published weight file of an architecture, and how its images are prepared."""

    tag: str
    arch: str = ""
    url: str = ""
    hf_hub_id: str = ""
    hf_hub_filename: str = ""
    sha256: str = ""
    license: str = ""
    num_classes: int = 1000
    input_size: tuple[int, int, int] = (3, 224, 224)
    test_input_size: tuple[int, int, int] | None = None
    min_input_size: tuple[int, int, int] | None = None
    fixed_input_size: bool = False
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    test_crop_pct: float | None = None
    crop_mode: str = "center"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    label_offset: int = 0
    format: str = ""
    """Name of the foreign checkpoint format that `imgzoo.loading` converts; empty for the field's own keys."""
    paper: str = ""
    origin_url: str = ""
    kwargs: Mapping[str, Any] = NOTHING
    """Constructor options that these weights need beside the architecture's own."""
    plugin: str = ""

    @property
    def published(self) -> bool:
        """Whether there is a file to load; otherwise the row only tells how images are prepared."""
        return bool(self.url or self.hf_hub_id)


class ModelSpec(NamedTuple):
    """One architecture by name: a constructor as a string, its options, its weights."""

    name: str
    target: str
    kwargs: Mapping[str, Any] = NOTHING
    weights: Sequence[WeightSpec] = ()
    """Best first: the first that is published is the default."""
    family: str = ""
    paper: str = ""
    capabilities: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = NOTHING
    """Deprecated names and the `name[.tag]` each stands for."""
    spelling: Mapping[str, Any] = NOTHING
    """Options as the field calls them in this family, and what they are here (see `imgzoo.spelling`)."""
    field: frozenset[str] = frozenset()
    """Words that the field's own constructors take: what is saved is said in them."""
    plugin: str = ""

    def load(self) -> Any:
        """Import the constructor; this is the moment torch arrives."""
        return load_target(self.target, self.plugin)


class ComponentSpec(NamedTuple):
    """An optimizer, schedule, loss, transform, dataset, logger or trainer by name."""

    name: str
    target: str
    kwargs: Mapping[str, Any] = NOTHING
    help: str = ""
    paper: str = ""
    traits: frozenset[str] = frozenset()
    plugin: str = ""

    def load(self) -> Any:
        return load_target(self.target, self.plugin)


class CommandSpec(NamedTuple):
    """A command of `imgzoo`: its help is known without importing it."""

    name: str
    target: str
    help: str = ""
    plugin: str = ""

    def load(self) -> Any:
        return load_target(self.target, self.plugin)


class HealthCheck(NamedTuple):
    """A named check that `imgzoo doctor` runs: `target()` yields `(level, message)`, level ok, warning or error."""

    name: str
    target: str
    help: str = ""
    plugin: str = ""

    def load(self) -> Any:
        return load_target(self.target, self.plugin)
