"""ImageNet's label sets: synsets, lemmas, definitions, index maps between the sets, and the ReaL labels."""

from __future__ import annotations

import functools
import json
import lzma
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from imgzoo.errors import UsageError

SUBSETS = (
    "imagenet-1k",
    "imagenet-12k",
    "imagenet-21k-goog",
    "imagenet-21k-miil",
    "imagenet-21k-miil-w21",
    "imagenet-22k",
    "imagenet-22k-ms",
    "imagenet-a",
    "imagenet-r",
    "mini-imagenet",
)
_SYNSET = re.compile(r"n\d{8}")
_TRAINED = re.compile(r"(?<![a-z])in\d+k")  # in a tag: the label sets its weights were trained on
_ALIASES = {"imagenet": "imagenet-1k", "imagenet-21k": "imagenet-21k-goog"}
_BY_CLASSES = {
    1000: "imagenet-1k",
    11221: "imagenet-21k-miil",
    11821: "imagenet-12k",
    21841: "imagenet-22k",
    21842: "imagenet-22k-ms",
    21843: "imagenet-21k-goog",
}


def _table(name: str) -> str:
    return lzma.decompress((files("imgzoo_data") / "tables" / name).read_bytes()).decode()


@functools.cache
def _synsets() -> dict[str, str]:
    """Each synset's line of the table, which is split only where somebody asks for its words."""
    return {line[:9]: line for line in _table("synsets.xz").split("\n")}


@functools.cache
def subset_synsets(name: str) -> tuple[str, ...]:
    """The synsets of a label set in class order."""
    name = _ALIASES.get(name, name)
    if name not in SUBSETS:
        raise UsageError(f"there is no label set '{name}'; use one of {', '.join(SUBSETS)}")
    steps = json.loads(_table("subsets.xz"))[name]
    names = list(_synsets())
    return tuple(names[row] for row in np.cumsum(steps))


def lemma(synset: str) -> str:
    """The words of a synset: "n01440764" -> "tench, Tinca tinca"."""
    return _known(synset)[1]


def are_synsets(names: Sequence[str]) -> bool:
    """Whether these names, at least one, are all synsets of ImageNet."""
    return bool(names) and all(_SYNSET.fullmatch(name) for name in names) and set(names) <= _synsets().keys()


def definition(synset: str) -> str:
    """WordNet's definition of a synset."""
    return _known(synset)[2]


def _known(synset: str) -> list[str]:
    found = _synsets().get(synset)
    if found is None:
        raise UsageError(f"'{synset}' is not a synset of ImageNet")
    return found.split("\t")


class DatasetInfo:
    """Names of the classes of a data set in order, and what they mean.

    Args:
        label_names: names in class order, or a mapping of class number to name.
        descriptions: name -> a few words, or (a few words, a detailed text); a name without any describes itself.
    """

    def __init__(
        self,
        label_names: Sequence[str] | Mapping[int, str],
        descriptions: Mapping[str, str | tuple[str, str]] | None = None,
        name: str = "the data set",
    ):
        if isinstance(label_names, Mapping):
            if sorted(label_names) != list(range(len(label_names))):
                raise UsageError(f"{name}: class numbers must be 0 to {len(label_names) - 1}, each once")
            label_names = [label_names[number] for number in range(len(label_names))]
        self.label_names: list[str] = [str(label) for label in label_names]
        self.descriptions, self.name = dict(descriptions or {}), name
        unknown = [label for label in self.descriptions if label not in set(self.label_names)]
        if unknown:
            raise UsageError(f"{name} has no class '{unknown[0]}' to describe")

    @property
    def num_classes(self) -> int:
        return len(self.label_names)

    def index_to_label_name(self, index: int) -> str:
        """The name of a class."""
        if not 0 <= index < len(self.label_names):
            raise UsageError(f"class {index} is outside 0..{len(self.label_names) - 1} of {self.name}")
        return self.label_names[index]

    def index_to_description(self, index: int, detailed: bool = False) -> str:
        """The description of a class."""
        return self.describe(self.index_to_label_name(index), detailed)

    def describe(self, label: str, detailed: bool = False) -> str:
        """The description of a name; detailed after a colon the longer text, where there is one."""
        found = self.descriptions.get(label, label)
        short, *more = (found,) if isinstance(found, str) else found
        return f"{short}: {more[0]}" if detailed and more else short

    def label_descriptions(self, detailed: bool = False) -> list[str]:
        """Descriptions of all classes in order."""
        return [self.describe(name, detailed) for name in self.label_names]


class ImageNetInfo(DatasetInfo):
    """Names of the classes of one label set: synsets, described by their lemmas, and detailed by their definitions."""

    def __init__(self, subset: str = "imagenet-1k"):
        self.subset = _ALIASES.get(subset, subset)
        super().__init__(subset_synsets(subset), name=self.subset)

    def describe(self, label: str, detailed: bool = False) -> str:
        """The lemmas of a synset, and after a colon its definition."""
        return f"{lemma(label)}: {definition(label)}" if detailed else lemma(label)


def index_map(source: str, target: str) -> np.ndarray:
    """(classes of target,) where each class of `target` lies in `source`, -1 where it does not.

    `logits[..., index_map("imagenet-1k", "imagenet-r")]` are the logits of ImageNet-R's 200 classes.
    """
    place = {name: number for number, name in enumerate(subset_synsets(source))}
    return np.array([place.get(name, -1) for name in subset_synsets(target)], np.int64)


def infer_imagenet_subset(model_or_cfg: Any) -> str | None:
    """The label set of a model or pretrained_cfg by its number of classes; None when there is none with that many, and
    where the tag of its weights names another data set.
    """
    cfg = getattr(model_or_cfg, "pretrained_cfg", model_or_cfg)
    cfg = cfg if hasattr(cfg, "get") else {}
    count, tag = getattr(model_or_cfg, "num_classes", None), cfg.get("tag")
    count = cfg.get("num_classes") if count is None else count
    if tag and tag != "untrained" and not _TRAINED.search(tag):
        return None
    return _BY_CLASSES.get(count) if count is not None else None


def class_names(model_or_cfg: Any, detailed: bool = False) -> list[str] | None:
    """Names of a model's classes: those that came with its weights (`label_names`), else ImageNet's by their number."""
    cfg = getattr(model_or_cfg, "pretrained_cfg", model_or_cfg)
    own = cfg.get("label_names") if hasattr(cfg, "get") else None
    if own:
        return list(own)
    subset = infer_imagenet_subset(model_or_cfg)
    return ImageNetInfo(subset).label_descriptions(detailed) if subset else None


def real_labels() -> list[list[int]]:
    """The ReaL labels of the 50,000 validation images (2006.07159); some have none."""
    return json.loads(_table("real.xz"))


class RealLabels:
    """Accuracy on ReaL: a prediction is right if it is any of an image's labels; images without labels do not count.

    `keys` are file names `ILSVRC2012_val_00000293.JPEG` by sample number, or None when samples are in validation order.
    """

    def __init__(self, keys: Sequence[str] | None = None, topk: Iterable[int] = (1, 5)):
        self.labels, self.topk = [frozenset(row) for row in real_labels()], tuple(topk)
        self.numbers = [self._number(key) for key in keys] if keys is not None else None
        self.hits = dict.fromkeys(self.topk, 0)
        self.count = 0

    @staticmethod
    def _number(key: str) -> int:
        found = re.search(r"_val_(\d{8})", key)
        if found is None or not 1 <= int(found[1]) <= 50_000:
            raise UsageError(f"'{key}' is not named like an ImageNet validation image, ILSVRC2012_val_00000001")
        return int(found[1]) - 1

    def add(self, predictions: Any, indices: Any) -> None:
        """Count predicted classes (B, >= max(topk)), best first, of samples (B,)."""
        for row, index in zip(np.asarray(predictions), np.asarray(indices).tolist()):
            labels = self.labels[self.numbers[index] if self.numbers is not None else index]
            if not labels:
                continue
            self.count += 1
            for k in self.topk:
                self.hits[k] += bool(labels.intersection(row[:k].tolist()))

    def accuracy(self, k: int = 1) -> float:
        """Share of counted images whose top k hold a right label, in percent."""
        return 100.0 * self.hits[k] / max(1, self.count)
