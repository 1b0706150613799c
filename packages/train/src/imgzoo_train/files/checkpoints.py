"""Checkpoints as folders of safetensors and JSON, complete only when their manifest is.

    checkpoints/00000120/model.safetensors, optimizer.safetensors, ..., state.json, manifest.json
    checkpoints/latest

A folder is written under another name, `manifest.json` (sha256 and size of every file) last; files and folder are
flushed, the folder is renamed, then the pointer `latest` is replaced. Loading walks from the newest folder back to the
first that verifies. Retention runs after the commit and never deletes the last good one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import WeightsError

from . import packing, storage

FORMAT = 1
_NAME = re.compile(r"\d{8,}")


class CheckpointError(WeightsError):
    """A checkpoint is damaged, incomplete or of a format this version does not know."""


def folder_name(step: int) -> str:
    """Name of the checkpoint of `step`; names sort like numbers."""
    return f"{step:08d}"


def write(folder: Path, parts: Mapping[str, Any]) -> None:
    """Write `parts` (name -> tree) as the checkpoint `folder`, whole or not at all.

    The tensors of part `model` go to `model.safetensors`, and so on; what is not a tensor goes to `state.json`.
    """
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    os.mkdir(partial)
    try:
        files: dict[str, Any] = {}
        plain: dict[str, Any] = {"format": FORMAT}
        for name, part in parts.items():
            plain[name], tensors = packing.pack(part)
            if tensors:
                files[f"{name}.safetensors"] = storage.write_tensors(partial / f"{name}.safetensors", tensors)
        files["state.json"] = storage.write_file(partial / "state.json", json.dumps(plain).encode())
        manifest = json.dumps({"format": FORMAT, "files": files}, indent=1).encode()
        storage.write_file(partial / "manifest.json", manifest)
        storage.sync_folder(partial)
        if folder.exists():
            storage.remove_folder(folder)
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    storage.sync_folder(folder.parent)


def verify(folder: Path) -> None:
    """Check every file of `folder` against its manifest; raises `CheckpointError` saying what is wrong."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        form, files = manifest["format"], dict(manifest["files"])
        expected = {str(name): (str(entry["sha256"]), int(entry["size"])) for name, entry in files.items()}
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no manifest.json; it was never completed") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{folder}/manifest.json cannot be read ({error})") from error
    if form != FORMAT:
        raise CheckpointError(f"{folder} has format {form}; this version of imgzoo-train reads format {FORMAT}")
    if "state.json" not in expected:
        raise CheckpointError(f"{folder}/manifest.json does not list state.json")

    for name, (digest, size) in expected.items():
        path = folder / name
        if path.parent != folder or not path.is_file():
            raise CheckpointError(f"{folder}/{name} is missing")
        entry = storage.file_entry(path)
        if entry["size"] != size:
            raise CheckpointError(f"{folder}/{name} has {entry['size']} bytes instead of {size}")
        if entry["sha256"] != digest:
            raise CheckpointError(f"{folder}/{name} has sha256 {entry['sha256'][:12]}... instead of {digest[:12]}...")


def read(folder: Path) -> dict[str, Any]:
    """Verify and read the checkpoint `folder` as `name -> tree`; raises `CheckpointError`."""
    verify(folder)
    try:
        plain = json.loads((folder / "state.json").read_bytes())
        parts: dict[str, Any] = {}
        for name, part in plain.items():
            path = folder / f"{name}.safetensors"
            parts[name] = packing.unpack(part, storage.read_tensors(path) if path.is_file() else {})
    except Exception as error:  # whatever a damaged file makes its reader raise, an older one may be good
        raise CheckpointError(f"{folder} cannot be read ({type(error).__name__}: {error})") from error
    return parts


@dataclass
class Retention:
    """Which checkpoints stay: the last ones, the best ones by metric, and those that are `pinned`."""

    last: int = 2
    best: int = 1
    pinned: set[int] = field(default_factory=set)

    def keep(self, steps: list[int], scores: Mapping[int, float]) -> set[int]:
        """The subset of `steps` that stays; a score that is not a number is never best."""
        ranked = sorted((step for step in steps if _finite(scores.get(step))), key=lambda step: (-scores[step], step))
        return set(sorted(steps)[-max(1, self.last) :]) | set(ranked[: self.best]) | (self.pinned & set(steps))


def _finite(score: float | None) -> bool:
    return score is not None and score == score and abs(score) != float("inf")


@dataclass
class Found:
    """A checkpoint that verified, and what was passed over on the way to it."""

    folder: Path
    parts: dict[str, Any]
    rejected: list[str] = field(default_factory=list)


class Checkpoints:
    """The checkpoint folder of a run, with a background writer."""

    def __init__(
        self,
        root: Path,
        retention: Retention | None = None,
        *,
        background: bool = True,
        warn: Callable[[str], None] = print,
    ) -> None:
        self.root = root
        self.retention = retention or Retention()
        self.background = background
        self.warn = warn
        self.scores: dict[int, float] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def steps(self) -> list[int]:
        """Steps of the folders that are there, complete or not, in rising order."""
        if not self.root.is_dir():
            return []
        return sorted(int(path.name) for path in self.root.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())

    def save(self, step: int, parts: Mapping[str, Any], score: float | None = None) -> None:
        """Save a snapshot of `parts`; returns before the files are written when the writer runs in the background.

        A full disk is a warning: the run goes on and the last good checkpoint stays. Any other failure of a
        background write is raised by the next `save` or `wait`.
        """
        self.wait()
        taken = packing.snapshot(dict(parts))
        if score is not None:
            self.scores[step] = score
        if not self.background:
            self._write(step, taken)
            self._raise()
            return
        self._thread = threading.Thread(target=self._write, args=(step, taken), name="checkpoint-writer")
        self._thread.start()

    def wait(self) -> None:
        """Wait for the background write, and raise what went wrong in it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, step: int, parts: Mapping[str, Any]) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            write(self.root / folder_name(step), parts)
            storage.replace_text(self.root / "latest", folder_name(step) + "\n")
            self.prune(step)
        except Exception as error:
            if storage.is_disk_full(error):
                self.warn(f"no space left for checkpoint {step}; the run goes on and the last good checkpoint stays")
            else:
                self._error = error

    def prune(self, good: int) -> None:
        """Delete what `retention` does not keep; `good` is the step known to be complete."""
        steps = self.steps()
        kept = self.retention.keep(steps, self.scores) | {good}
        for step in steps:
            if step not in kept:
                storage.remove_folder(self.root / folder_name(step))
        for path in self.root.glob(".trash-*"):
            shutil.rmtree(path, ignore_errors=True)

    def newest(self) -> Found | None:
        """The newest checkpoint that verifies; None when there is no folder at all.

        Raises `CheckpointError` when there are folders and none is good.
        """
        self.wait()
        self._adopt()
        rejected: list[str] = []
        for step in reversed(self.steps()):
            folder = self.root / folder_name(step)
            try:
                found = Found(folder, read(folder), rejected)
            except CheckpointError as error:
                rejected.append(str(error))
                continue
            for reason in rejected:
                self.warn(f"skipped a damaged checkpoint: {reason}")
            if rejected:
                self.warn(f"continuing from the newest good one, {folder}")
            return found
        if rejected:
            raise CheckpointError(f"no checkpoint in {self.root} is intact; the newest: {rejected[0]}")
        return None

    def _adopt(self) -> None:
        """Give a folder that was complete, but not yet renamed when the process died, its name."""
        for partial in self.root.glob(".partial-*"):
            folder = self.root / partial.name.removeprefix(".partial-")
            if _NAME.fullmatch(folder.name) and not folder.exists():
                with contextlib.suppress(CheckpointError, FileNotFoundError):  # another rank may be first
                    verify(partial)
                    os.rename(partial, folder)


def same_tensors(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    """Whether two tables hold the same names with bitwise equal tensors."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
