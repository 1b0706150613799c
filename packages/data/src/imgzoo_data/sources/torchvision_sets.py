"""`torchvision:NAME`: data sets of torchvision, under `root`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from imgzoo.errors import DataError, UsageError

from .base import SPLITS, TRAIN, VALIDATION, Sample, Source, real_place
from .folder import find_split

# name -> (class of torchvision.datasets, how it takes the split)
SETS = {
    "cifar10": ("CIFAR10", "train"),
    "cifar100": ("CIFAR100", "train"),
    "mnist": ("MNIST", "train"),
    "kmnist": ("KMNIST", "train"),
    "fashion_mnist": ("FashionMNIST", "train"),
    "qmnist": ("QMNIST", "train"),
    "inaturalist": ("INaturalist", "version"),
    "inat": ("INaturalist", "version"),
    "places365": ("Places365", "places"),
    "imagenet": ("ImageNet", "split"),
    "image_folder": ("ImageFolder", "folder"),
    "folder": ("ImageFolder", "folder"),
}


class TorchvisionSource(Source):
    """A torchvision data set; images that are files are handed over as bytes, so that decoding is ours.

    Args:
        root: folder of the data set.
        download: let torchvision fetch it where it can.
        version, target_type: of iNaturalist, e.g. `2021_valid` and `full`.
    """

    def __init__(
        self,
        location: str,
        split: str = TRAIN,
        root: str = "data",
        download: bool = False,
        version: str | None = None,
        target_type: str = "full",
    ):
        import torchvision.datasets

        if location not in SETS:
            raise UsageError(f"torchvision: has no '{location}' here; use one of {', '.join(SETS)}")
        name, way = SETS[location]
        training = SPLITS.get(split.lower(), split) == TRAIN
        options: dict[str, Any] = _OPTIONS[way](training, split, root, download, version, target_type)
        if name in ("ImageFolder", "ImageNet", "Places365"):
            options["loader"] = read_bytes
        try:
            self.data = getattr(torchvision.datasets, name)(**options)
        except (RuntimeError, OSError, ValueError) as error:
            message = str(error).split("\n")[0]
            raise DataError(
                f"torchvision:{location} cannot be opened in '{root}': {message}; see download=true"
            ) from error
        self.class_names = [n if isinstance(n, str) else ", ".join(n) for n in getattr(self.data, "classes", [])]
        self.served = f"the {'training' if training else 'other'} part of {name}"
        self.rule = "the labels of the set"
        if way == "folder":
            self.whole = find_split(Path(root), split)[1]
        if not training and way == "train" and SPLITS.get(split.lower()) == VALIDATION:
            self.notes = [f"{name} has no validation part: this is its test part"]
        self.num_classes = len(self.class_names) or len(getattr(self.data, "all_categories", []))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        image, target = self.data[int(index)]
        return Sample(image, int(target), self.key(index))

    def key(self, index: int) -> str:
        files = getattr(self.data, "samples", None)
        return str(files[index][0]) if files else f"sample {index}"

    def place(self, index: int) -> str | None:
        files = getattr(self.data, "samples", None)
        return real_place(str(files[index][0])) if files else None

    def size(self, index: int) -> int | None:
        files = getattr(self.data, "samples", None)
        return os.stat(files[index][0]).st_size if files else None

    def targets(self) -> np.ndarray:
        known = getattr(self.data, "targets", None)
        return np.asarray(known) if known is not None else super().targets()


def read_bytes(path: str) -> bytes:
    """A loader for torchvision's file-based sets."""
    return Path(path).read_bytes()


def _by_train(training: bool, split: str, root: str, download: bool, version: Any, kind: str) -> dict[str, Any]:
    return {"root": root, "train": training, "download": download}


def _by_split(training: bool, split: str, root: str, download: bool, version: Any, kind: str) -> dict[str, Any]:
    return {"root": root, "split": "train" if training else "val"}


def _by_places(training: bool, split: str, root: str, download: bool, version: Any, kind: str) -> dict[str, Any]:
    return {"root": root, "split": "train-standard" if training else "val", "download": download}


def _by_version(training: bool, split: str, root: str, download: bool, version: Any, kind: str) -> dict[str, Any]:
    wanted = version or ("2021_train" if training else "2021_valid")
    return {"root": root, "version": wanted, "target_type": kind, "download": download}


def _by_folder(training: bool, split: str, root: str, download: bool, version: Any, kind: str) -> dict[str, Any]:
    path = Path(root)
    return {"root": str(find_split(path, split)[0] if path.is_dir() else path)}


_OPTIONS = {
    "train": _by_train,
    "split": _by_split,
    "places": _by_places,
    "version": _by_version,
    "folder": _by_folder,
}
