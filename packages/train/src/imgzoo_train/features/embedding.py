"""Features of every image of a source, in its order: the vector before the classifier, tokens, or levels."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imgzoo.errors import CapabilityError, UsageError
from imgzoo_train.models.opening import advised, examined, open_model, open_split, warn_of_chance
from imgzoo_train.models.prediction import NOT_FINITE
from imgzoo_train.models.sizes import check_size
from imgzoo_train.techniques.precision import create_precision

PART_BYTES, PART_SECONDS = 1 << 26, 30.0
"""When a part is full: by its size, or by the time it took, whichever is first."""


@dataclass
class Settings:
    """How a source is embedded."""

    source: str
    model: str
    split: str = "validation"
    kind: str = "pooled"
    task: str = "classification"
    """What the targets of the source are: a listing has classes, or numbers."""
    pretrained: str = "true"
    batch_size: int = 64
    workers: int = 0
    img_size: int | None = None
    precision: str = "fp32"
    range: str | None = None
    """Values of black and white of images of more than 8 bits; None takes the source's, or the model's."""
    max_pixels: int | None = None


@dataclass
class Part:
    """Consecutive rows: an array (n, ...) of float32 for each name, and their targets (n,) or (n, count)."""

    features: dict[str, np.ndarray]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


class Embedder:
    """A network without its classifier, as `embed` and `search` use it."""

    def __init__(
        self,
        text: str,
        pretrained: str = "true",
        *,
        kind: str = "pooled",
        img_size: int | None = None,
        precision: str = "fp32",
        values: Any = None,
        device: torch.device | None = None,
    ) -> None:
        from imgzoo_data import resolve_data_config

        self.text, self.kind, self.device = text, kind, device or torch.device("cpu")
        self.model = open_model(text, pretrained, num_classes=0, img_size=img_size).eval()
        warn_of_chance(self.model, text)
        if img_size is not None:
            check_size(self.model, img_size)
        self.weights = digest_of(self.model)
        self.precision_name, self.precision = precision, create_precision(precision, self.device)
        self.precision.prepare(self.model.to(self.device))
        self.config = resolve_data_config(self.model, img_size=img_size, use_test_size=img_size is None, range=values)

    def record(self) -> dict[str, Any]:
        """What features depend on beside the images."""
        return {
            "model": self.text,
            "architecture": self.model.name,
            "weights": self.weights,
            "kind": self.kind,
            "precision": self.precision_name,
            "preprocessing": json.loads(json.dumps(self.config.to_dict())),
        }

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> dict[str, np.ndarray]:
        """`{name: (B, ...)}` of images (B, C, H, W); raises `UsageError` where one is no finite number."""
        with self.precision.forward(self.device):
            found = self._features(self.precision.inputs(images.to(self.device)))
        arrays = {name: value.float().cpu().numpy() for name, value in found.items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise UsageError(f"{self.text}: {NOT_FINITE}")
        return arrays

    def _features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.kind == "levels":
            levels = self.model.forward_intermediates(images, intermediates_only=True)
            return {f"level_{place}": level for place, level in enumerate(levels)}
        features = self.model.forward_features(images)
        if self.kind == "pooled":
            return {"features": self.model.forward_head(features, pre_logits=True)}
        if not isinstance(features, torch.Tensor) or features.ndim != 3:
            raise CapabilityError(f"{self.text} has no tokens, its features are a map; use --kind levels or pooled")
        return {"features": features}


class Embedding:
    """A source and an embedder: `parts(done)` yields what lies behind the first `done` images."""

    def __init__(
        self, settings: Settings, device: torch.device | None = None, embedder: Embedder | None = None
    ) -> None:
        from imgzoo_data import StreamSource, settle

        self.settings = settings
        given: dict[str, Any] = {"range": settings.range} if settings.range else {}
        self.embedder = embedder or Embedder(
            settings.model,
            settings.pretrained,
            kind=settings.kind,
            img_size=settings.img_size,
            precision=settings.precision,
            device=device,
        )
        self.source = open_split(settings.source, settings.split, settings.task, **given)
        if isinstance(self.source, StreamSource):
            raise UsageError(
                f"{settings.source} is a stream, whose order is not fixed; embed a source with random access"
            )
        if not len(self.source):
            raise UsageError(f"{settings.source} has no images in its split {settings.split}")
        self.described = settle(self.source, self.embedder.config.range)
        self.config = replace(self.embedder.config, range=self.source.range)
        self.keys = [self.source.key(index) for index in range(len(self.source))]

    def record(self) -> dict[str, Any]:
        """What the file says of itself; two runs of one record make the same rows."""
        return {
            **self.embedder.record(),
            "preprocessing": json.loads(json.dumps(self.config.to_dict())),
            "batch_size": self.settings.batch_size,
            "source": self.settings.source,
            "split": self.settings.split,
            "images": len(self.keys),
            "keys": hashlib.sha256(json.dumps(self.keys).encode()).hexdigest(),
            "classes": list(self.source.class_names),
            "task": self.settings.task,
            "multi_label": bool(self.source.multi_label),
        }

    def parts(self, done: int = 0, watch: Callable[[Any], Iterable[Any]] = iter) -> Iterator[Part]:
        """Parts of whole batches behind the first `done` images, themselves whole batches; `watch` shows progress."""
        from imgzoo_data import create_loader, create_transform

        settings = self.settings
        loader = create_loader(
            self.source,
            create_transform(self.config, training=False, max_pixels=settings.max_pixels),
            settings.batch_size,
            training=False,
            workers=settings.workers,
            device=self.embedder.device,
            start_step=-(-done // settings.batch_size),
        )
        held: list[Part] = []
        begun = time.perf_counter()
        for batch in advised(watch(loader), examined(settings.source, settings.split)):
            held.append(Part(self.embedder(batch.images), batch.targets.cpu().numpy()))
            size = sum(array.nbytes for part in held for array in part.features.values())
            if size >= PART_BYTES or time.perf_counter() - begun >= PART_SECONDS:
                yield joined(held)
                held, begun = [], time.perf_counter()
        if held:
            yield joined(held)


def joined(parts: list[Part]) -> Part:
    """Parts, one behind the other, as one."""
    features = {name: np.concatenate([part.features[name] for part in parts]) for name in parts[0].features}
    return Part(features, np.concatenate([part.targets for part in parts]))


def digest_of(model: Any) -> str:
    """sha256 of all parameters and buffers by name: what tells two networks apart."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What two records differ in, in words."""
    words = {"weights": "the weights of the model", "keys": "the names of the images", "classes": "the classes"}
    found = []
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            short = name in words or isinstance(before.get(name), dict)
            found.append(words.get(name, name) if short else f"{name} ({before.get(name)}, now {now.get(name)})")
    return found


def same_model(record: dict[str, Any], embedder: Embedder, path: Path) -> None:
    """Raise `UsageError` where the features of a file are of another network or another kind."""
    now = embedder.record()
    for name in ("architecture", "weights", "kind"):
        if record[name] != now[name]:
            raise UsageError(
                f"{path} holds features of another model: the {name} of {record['model']} is not that of "
                f"{embedder.text}; name the model that embedded it with --model"
            )
