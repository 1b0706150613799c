"""What a model name and a `pretrained` argument mean: an architecture, and a place where its weights are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from imgzoo.errors import UnknownNameError, WeightsError
from imgzoo.models import find_weights, is_model, resolve_model
from imgzoo.plain import is_list, is_table
from imgzoo.registry import registry
from imgzoo.specs import ModelSpec, WeightSpec
from imgzoo.spelling import translated

from .disk import CONFIG, FILES, read_config
from .places import PREFERRED, fetch_config, package_license
from .stored import MOST_PATCHES, check_stored

SCHEMES = ("hf-hub:", "local-dir:", "package:")
TASKS = ("classification", "multilabel", "regression")
PREPROCESSING = ("input_size", "test_input_size", "min_input_size", "fixed_input_size", "interpolation", "crop_pct",
                 "test_crop_pct", "crop_mode", "mean", "std", "num_classes", "label_offset", "license", "url",
                 "hf_hub_id", "origin_url")  # fmt: skip
OWN_PREPROCESSING = ("range", "sequence")
"""Values of black and white in images of more than 8 bits; most patches of an image at its own shape."""


@dataclass
class ModelSource:
    """An architecture with the weights chosen for it; `weights_from` is empty when none are to be loaded."""

    spec: ModelSpec
    weights: WeightSpec | None = None
    weights_from: str = ""
    """`tag`, or a location: a file, a folder, `hf-hub:...`, `package:...`, a URL, or any URI a plugin fetches."""
    model_args: dict[str, Any] = field(default_factory=dict[str, Any])
    """Constructor options stored beside saved weights."""
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    """Preprocessing stored beside saved weights."""
    class_names: list[str] | None = None
    task: str = "classification"
    """What the stored weights answer: `classification`, `multilabel` or `regression`."""

    @property
    def full_name(self) -> str:
        """`plugin/name.tag` of the weights, whoever else uses the name and the tag."""
        if self.weights is None:
            raise WeightsError(f"{self.spec.name} has no published weights")
        return f"{self.weights.plugin or self.spec.plugin}/{self.spec.name}.{self.weights.tag}"

    def preprocessing(self) -> dict[str, Any]:
        """How images are prepared: the stored configuration over the tag's over the defaults of the field."""
        weights = self.weights or WeightSpec("")
        cells = {key: getattr(weights, key) for key in PREPROCESSING}
        named = {"architecture": self.spec.name, "tag": weights.tag}
        return {**named, **cells, **{key: value for key, value in self.config.items() if value is not None}}

    @property
    def license(self) -> str:
        """License of the weights that will be loaded; empty when nobody says."""
        if self.weights_from == "tag":
            return self.weights.license if self.weights else ""
        if self.weights_from.startswith("package:"):
            return package_license(self.weights_from.removeprefix("package:"))
        return str(self.config.get("license") or "")


def means_folder(text: str) -> bool:
    """Whether a text that may be a model's name is a path: one that says so (`./resnet18`), or no name that is known.

    So no folder that happens to lie in the working directory takes the place of a model.
    """
    marked = text.startswith(("./", "../", "~", "/", os.sep)) or os.path.isabs(text) or text in (".", "..")
    return marked or not (text.partition(".")[0] in registry("models") or is_model(text))


def locate(name: str, pretrained: bool | str | PathLike[str] = False) -> ModelSource:
    """Resolve a model name and the `pretrained` argument of `create_model`."""
    text = str(name)
    if text.startswith("hf_hub:"):
        text = "hf-hub:" + text.removeprefix("hf_hub:")
    if text.startswith(SCHEMES) or (os.path.isfile(os.path.join(text, CONFIG)) and means_folder(text)):
        source = from_folder(text)
        source.weights_from = text if pretrained is True else ""
    else:
        _refuse_path(text)
        source = named(text)
        source.weights_from = "tag" if pretrained is True else ""
    if pretrained is True or not pretrained:
        if source.weights_from == "tag" and not (source.weights and source.weights.published):
            raise WeightsError(f"{source.spec.name} has no published weights; give a file or folder as pretrained")
        return source
    return _with_weights(source, os.fspath(pretrained))


def _refuse_path(text: str) -> None:
    """Raise `UnknownNameError` for a file or folder that is there where a model was to be named."""
    if os.path.isfile(text) and (means_folder(text) or text.endswith(FILES)):
        raise UnknownNameError(
            f"'{text}' is a file, no model: name the architecture, and give weights as pretrained (--pretrained); "
            "of exported files the commands take those that imgzoo export --engine wrote"
        )
    if os.path.isdir(text) and means_folder(text):
        raise UnknownNameError(f"'{text}' is a folder without a {CONFIG}, no model: save_model writes one")


def _with_weights(source: ModelSource, where: str) -> ModelSource:
    """The source with weights from a tag of the catalog, or from a place outside it."""
    tags = {weights.tag for weights in source.spec.weights}
    if where in tags:
        source.weights, source.weights_from = find_weights(source.spec, where), "tag"
    elif where.startswith(SCHEMES) or "://" in where or os.path.exists(where):
        source.weights_from = where
        if folder := _described(where):
            stored = from_folder(folder)
            source.config, source.class_names, source.task = stored.config, stored.class_names, stored.task
    elif where.endswith(FILES) or os.sep in where:
        raise WeightsError(f"there is no weight file or folder '{where}'")
    else:
        known = ", ".join(sorted(tags)) or "none"
        raise UnknownNameError(f"{source.spec.name} has no weights '{where}'; its tags are {known}")
    return source


def _described(where: str) -> str:
    """The folder that says which network of ours the weights are, empty where there is none: `where` itself, or the
    saved folder that the file is of. Another library's configuration does not say it.
    """
    path = Path(where.removeprefix("local-dir:"))
    folder = path.parent if path.name in PREFERRED else path
    described = (folder / CONFIG).is_file() and bool(_architecture(read_config(folder / CONFIG)))
    return f"local-dir:{folder}" if described else ""


def _architecture(config: dict[str, Any]) -> Any:
    stored = config.get("pretrained_cfg")
    return config.get("architecture") or (stored.get("architecture") if is_table(stored) else None)


def named(name: str) -> ModelSource:
    """`[plugin/]arch[.tag]` through the registry; deprecated names warn and lead to the new name and its tag."""
    return ModelSource(*resolve_model(name))


def from_folder(location: str) -> ModelSource:
    """The model that a saved folder or hub repository describes in its `config.json`."""
    config = fetch_config(location)
    check_stored(config, location)
    architecture = _architecture(config)
    if not isinstance(architecture, str):
        raise WeightsError(f"{location}: {CONFIG} names no architecture")
    source = named(architecture)
    stored: Mapping[str, Any] = config.get("pretrained_cfg") or config
    source.config = {key: _frozen(stored[key]) for key in PREPROCESSING if key in stored}
    own: Mapping[str, Any] = config.get("imgzoo") or {}
    source.config |= {key: _frozen(own[key]) for key in OWN_PREPROCESSING if own.get(key)}
    length = source.config.get("sequence", 1)
    if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= MOST_PATCHES:
        raise WeightsError(f"{location}: {CONFIG} says sequences of {length!r} patches; up to {MOST_PATCHES} can be")
    theirs: Mapping[str, Any] = config.get("model_args") or {}
    source.model_args = {**translated(source.spec, theirs), **(own.get("model_args") or {})}
    for key in ("num_classes", "global_pool"):
        if key in config and config[key] is not None:
            source.model_args.setdefault(key, config[key])
    names = config.get("label_names") or stored.get("label_names") or config.get("labels")
    source.class_names = [str(each) for each in names] if is_list(names) else None
    source.task = own.get("task", source.task)
    if source.task not in TASKS:
        raise WeightsError(f"{location}: {CONFIG} names the task {source.task!r}; known are {', '.join(TASKS)}")
    return source


def _frozen(value: Any) -> Any:
    return tuple(value) if is_list(value) else value
