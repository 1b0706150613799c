"""What is known of weights, in the field's form. No torch."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from imgzoo.specs import WeightSpec

KEPT = ("num_classes", "input_size", "crop_pct", "interpolation", "mean", "std", "pool_size", "first_conv",
        "classifier", "test_input_size", "test_crop_pct", "crop_mode")  # fmt: skip


SAID = ("pool_size", "first_conv", "classifier", "num_classes")
"""What a configuration says even where it is nothing."""


@dataclass
class PretrainedCfg:
    """Where weights are and how images for them are prepared."""

    url: Any = None
    file: str | None = None
    state_dict: dict[str, Any] | None = None
    hf_hub_id: str | None = None
    hf_hub_filename: str | None = None
    source: str | None = None
    architecture: str | None = None
    tag: str | None = None
    custom_load: bool | str = False
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
    num_classes: int = 1000
    label_offset: int | None = None
    label_names: tuple[str, ...] | None = None
    label_descriptions: dict[str, str] | None = None
    pool_size: tuple[int, ...] | None = None
    test_pool_size: tuple[int, ...] | None = None
    first_conv: str | None = None
    classifier: str | None = None
    license: str | None = None
    description: str | None = None
    origin_url: str | None = None
    paper_name: str | None = None
    paper_ids: Any = None
    notes: tuple[str, ...] | None = None

    @property
    def has_weights(self) -> bool:
        return bool(self.url or self.file or self.hf_hub_id or self.state_dict)

    def to_dict(self, remove_source: bool = False, remove_null: bool = True) -> dict[str, Any]:
        return filter_pretrained_cfg(asdict(self), remove_source, remove_null)


def filter_pretrained_cfg(cfg: Mapping[str, Any], remove_source: bool = False, remove_null: bool = True) -> dict:
    """Without where the weights are, or without what is not known."""
    source = {"url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict"} if remove_source else set()
    return {key: value for key, value in cfg.items()
            if key not in source and not (remove_null and value is None and key not in SAID)}  # fmt: skip


@dataclass
class DefaultCfg:
    """The configurations of an architecture by tag, the default one first."""

    tags: deque[str] = field(default_factory=deque)
    cfgs: dict[str, PretrainedCfg] = field(default_factory=dict)
    is_pretrained: bool = False

    @property
    def default(self) -> PretrainedCfg:
        return self.cfgs[self.tags[0]]

    @property
    def default_with_tag(self) -> tuple[str, PretrainedCfg]:
        return self.tags[0], self.cfgs[self.tags[0]]


ARRAYS = re.compile(r"flexivit_.*|resnetv2_.*\.goog_.*|vit_.*\.(augreg_.*|sam_in1k)")
"""Weights whose authors published arrays of JAX, which the field reads by the network's own `load_pretrained`."""
SOURCES = ("url", "file", "hf_hub_id", "hf_hub_filename")


def of_arrays(architecture: str, tag: str) -> bool:
    return ARRAYS.fullmatch(f"{architecture}.{tag}") is not None


def with_source(overlay: Mapping[str, Any]) -> dict[str, Any]:
    """An overlay that names another source of weights says how they are read, too: as any others."""
    replaced = "custom_load" not in overlay and any(overlay.get(key) for key in SOURCES)
    return {**overlay, **({"custom_load": False} if replaced else {})}


def spelled_license(license: str) -> str:
    """A license by its identifier as the field writes it."""
    return license.removeprefix("LicenseRef-").lower()


def papers_of(weights: WeightSpec, family: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Where the paper of weights is, and its title where it is the family's."""
    ids = f"arXiv:{weights.paper}" if weights.paper else None
    title = family.get("paper_name") if family and family.get("paper_ids") == ids else None
    return {key: each for key, each in (("paper_ids", ids), ("paper_name", title)) if each}


def of_weights(weights: WeightSpec, architecture: str) -> PretrainedCfg:
    """What the catalog says of a weight file."""
    names = {each for each in PretrainedCfg.__dataclass_fields__ if hasattr(weights, each)}
    known = {name: getattr(weights, name) or None for name in names}
    known = {name: value for name, value in known.items() if value is not None}
    known["num_classes"] = weights.num_classes
    known["url"] = weights.url
    known["custom_load"] = of_arrays(architecture, weights.tag)
    if "license" in known:
        known["license"] = spelled_license(known["license"])
    known |= papers_of(weights)
    return replace(PretrainedCfg(**known), architecture=architecture)


def generate_default_cfgs(cfgs: Mapping[str, Any]) -> dict[str, DefaultCfg]:
    """`name.tag` -> configuration, as one `DefaultCfg` for each name; a tag that ends in `*` is the default."""
    found: dict[str, DefaultCfg] = defaultdict(DefaultCfg)
    for key, each in cfgs.items():
        cfg = PretrainedCfg(**each) if isinstance(each, Mapping) else deepcopy(each)
        name, _, tag = key.partition(".")
        first, tag = tag.endswith("*"), tag.strip("*")
        entry = found[name]
        if cfg.has_weights and (first or not entry.is_pretrained):
            entry.tags.appendleft(tag)
            entry.is_pretrained = True
        else:
            entry.tags.append(tag)
        entry.cfgs[tag] = replace(cfg, architecture=name, tag=tag)
    return found
