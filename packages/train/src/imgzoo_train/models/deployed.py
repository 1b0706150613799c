"""A deployed network: a function of images that knows what it answers, and that a file can hold."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imgzoo.errors import UsageError
from imgzoo.text import first_line
from imgzoo_train.engines.base import Run, checked_count
from imgzoo_train.engines.choosing import engine_named
from imgzoo_train.engines.files import Scratch, pack, unpack

from .parity import Parity, named


class Deployed(nn.Module):
    """Images (B, C, H, W) of float32, as torch or numpy, to logits or levels of the same kind.

    `parity` says how far it is from the model it was made of, `report` what it is and cost: engine, precision, threads,
    `ms` for the example's batch, `compile_seconds`, `memory_mb` (growth of the process), and why it was chosen. A batch
    on another device is copied to the processor and its answer back. What runs it is not safe for several threads.
    """

    takes_patches = False

    def __init__(
        self,
        run: Run,
        record: Mapping[str, Any],
        folder: Scratch | None = None,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.run, self.record, self.network = run, dict(record), network
        self._folder = folder
        facts = self.record["model"]
        self.name, self.num_classes, self.in_chans = facts["name"], facts["num_classes"], facts["in_chans"]
        self.task, self.class_names, self.pretrained_cfg = facts["task"], facts["class_names"], facts["pretrained_cfg"]
        self.eval()

    @property
    def engine(self) -> str:
        return self.record["engine"]

    @property
    def parity(self) -> Parity:
        return Parity(**self.record["parity"])

    @property
    def report(self) -> dict[str, Any]:
        return self.record["report"]

    @property
    def dtype(self) -> torch.dtype:
        """Of the images that it takes; files of before it was said take float32."""
        return getattr(torch, self.record.get("dtype", "float32"))

    def forward(self, images: Any) -> Any:
        try:
            given = images if isinstance(images, torch.Tensor) else torch.as_tensor(images)
        except (TypeError, ValueError, RuntimeError):
            raise UsageError(f"{self._taken()}, not {type(images).__name__}") from None
        self._check(given)
        if self.network is not None:
            found = self.run(given)
        else:
            found = [each.to(given.device) for each in self._batches(given.detach().cpu())]
        if given is not images:
            found = [each.detach().cpu().numpy() for each in found]
        return found if self.record["several"] else found[0]

    def _batches(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Outputs of any number of images; a fixed batch is filled up with the last image."""
        batch, count = self.record["batch"], len(images)
        if batch in (None, count):
            return self.run(images)
        rows = [*range(count), *[count - 1] * (-count % batch)]
        parts = zip(*(self.run(part) for part in images[rows].split(batch)))
        return [torch.cat(part)[:count] for part in parts]

    def _check(self, images: torch.Tensor) -> None:
        """Raise `UsageError` for what the network cannot take."""
        size = self.record["input_size"]
        fits = images.ndim == 4 and len(images) > 0 and images.shape[1] == size[0] and images.dtype == self.dtype
        if not (fits and (self.network is not None or list(images.shape[1:]) == list(size))):
            raise UsageError(f"{self._taken()}, not {tuple(images.shape)} of {named(images.dtype)}")

    def _taken(self) -> str:
        chans, *sides = self.record["input_size"]
        wanted = "H, W" if self.network is not None else ", ".join(map(str, sides))
        return f"{self.name} deployed with {self.engine} takes a batch (B, {chans}, {wanted}) of {named(self.dtype)}"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as one file, which `load_deployed` and every command that takes a model reads."""
        from .deployment import written

        folder = self._folder or written(self)
        return pack(folder.path, self.record, Path(path))


def load_deployed(path: str | os.PathLike[str], *, threads: int | None = None) -> Deployed:
    """The network in a deployed file; its code and the model it was made of are not needed.

    A file of the engines eager and inductor is a program, which runs with your rights: open only those you trust.
    Raises `UsageError` for a damaged file, one of another version, or one that cannot run here, and
    `MissingDependencyError` where its engine is missing.
    """
    threads = checked_count(threads, "threads")
    folder = Scratch()
    record = unpack(Path(path), folder.path)
    engine = engine_named(record["engine"])
    engine.require()
    try:
        engine.check(record["facts"])
    except UsageError as error:
        raise UsageError(f"{path} cannot run here: {error}") from error
    threads = threads or torch.get_num_threads()
    try:
        run = engine.load(folder.path, threads, record["precision"])
    except Exception as error:
        reason = first_line(error)
        raise UsageError(f"{path} cannot be run by {engine.name} ({reason}): write it again") from error
    record["report"] = {**record["report"], "threads": threads}
    return Deployed(run, record, folder)


def parameter_count(model: Any) -> int:
    """Parameters of a model, deployed or not."""
    if isinstance(model, Deployed):
        return model.record["model"]["parameters"]
    return sum(parameter.numel() for parameter in model.parameters())


def facts_of(model: Any, size: tuple[int, ...]) -> dict[str, Any]:
    """What commands ask a model: name, classes, task, and the preprocessing that its images of that size get."""
    cfg = dict(model.pretrained_cfg)
    if list(cfg.get("test_input_size") or ()) == list(size) and cfg.get("test_crop_pct"):
        cfg["crop_pct"] = cfg["test_crop_pct"]
    cfg = {key: value for key, value in cfg.items() if not key.startswith("test_") and key != "sequence"}
    names = getattr(model, "class_names", None)
    facts = {
        "name": getattr(model, "name", None) or type(model).__name__,
        "num_classes": int(getattr(model, "num_classes", 0) or 0),
        "in_chans": int(size[0]),
        "task": getattr(model, "task", "classification"),
        "class_names": list(names) if names else None,
        "parameters": parameter_count(model),
        "pretrained_cfg": {**cfg, "input_size": size},
    }
    return json.loads(json.dumps(facts, default=str))
