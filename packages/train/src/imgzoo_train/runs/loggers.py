"""Metric sinks besides the files: rows go to every one, by registered name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from imgzoo.errors import MissingDependencyError
from imgzoo.guard import attempt
from imgzoo.text import safe, told
from imgzoo_train.config.settings import Config


class Loggers:
    """Every sink of a run, and the run events of plugins. A sink has `log(row)` and `end(summary)`; its class may have
    `library()`, which raises `MissingDependencyError` for what it needs and is not installed.
    """

    def __init__(
        self, sinks: Sequence[Any], folder: Path | None = None, warn: Callable[[str], None] = warnings.warn
    ) -> None:
        self.sinks, self.folder, self.warn = list(sinks), folder, warn

    @staticmethod
    def open(config: Config, folder: Path, warn: Callable[[str], None] = warnings.warn) -> Loggers:
        """The sinks that the configuration names; raises `UnknownNameError` or `MissingDependencyError`."""
        from imgzoo.registry import registry

        table = registry("loggers")
        sinks = []
        for name in config.run.loggers:
            spec = table.resolve(name)
            sinks.append(spec.load()(folder=folder, config=config, **spec.kwargs))
        loggers = Loggers(sinks, folder, warn)
        loggers.event("imgzoo_run_started", config=config)
        return loggers

    @staticmethod
    def check(names: Sequence[str]) -> None:
        """Raise `UnknownNameError` or `MissingDependencyError` for sinks that a run could not open."""
        from imgzoo.registry import registry

        for name in names:
            getattr(registry("loggers").resolve(name).load(), "library", _nothing)()

    def event(self, name: str, **values: Any) -> None:
        """Tell plugins that follow runs."""
        if self.folder is None:
            return
        from imgzoo.discovery.manager import manager

        for plugin, _, error in manager().each(name, folder=self.folder, **values):
            if error is not None:
                self.warn(f"plugin {plugin.title} failed at {name} ({safe(told(error))}); the run goes on")

    def log(self, row: Mapping[str, Any]) -> None:
        self._each("log", row)
        self.event("imgzoo_run_logged", row=row)

    def end(self, summary: Mapping[str, Any]) -> None:
        self._each("end", summary)
        self.event("imgzoo_run_ended", summary=summary)

    def _each(self, method: str, *values: Mapping[str, Any]) -> None:
        """Call every sink; one that fails is left out from then on, and the run goes on."""
        for sink in list(self.sinks):
            _, error = attempt(partial(getattr(sink, method, _nothing), *values))
            if error is not None:
                self.sinks.remove(sink)
                self.warn(f"logger {type(sink).__name__} failed ({safe(told(error))}) and gets no more rows")

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, *_: object) -> None:
        self._each("close")


def _nothing(*_: Any) -> None:
    """A sink need not have `close`."""


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """`{"train/loss": ...}` of a row."""
    kept = {name: value for name, value in row.items() if isinstance(value, (int, float)) and name != "step"}
    return {f"{row['kind']}/{name}": float(value) for name, value in kept.items()}


class TensorBoard:
    """Event files in the run folder."""

    @staticmethod
    def library() -> Any:
        """What writes event files."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError("TensorBoard is missing: pip install imgzoo-train[tensorboard]") from error
        return SummaryWriter

    def __init__(self, folder: Path, config: Config) -> None:
        self.writer = self.library()(str(folder / "tensorboard"))

    def log(self, row: Mapping[str, Any]) -> None:
        for name, value in _numbers(row).items():
            self.writer.add_scalar(name, value, row["step"])

    def end(self, summary: Mapping[str, Any]) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class _RunTracker:
    """What W&B and trackio share: `init`, `log`, `finish`."""

    module = ""

    @classmethod
    def library(cls) -> Any:
        """The module."""
        import importlib

        try:
            return importlib.import_module(cls.module)
        except ImportError as error:
            name = cls.module
            raise MissingDependencyError(f"{name} is missing: pip install imgzoo-train[{name}]") from error

    def __init__(self, folder: Path, config: Config) -> None:
        import dataclasses

        self.tracker = self.library()
        self.tracker.init(project="imgzoo", name=folder.name, config=dataclasses.asdict(config))

    def log(self, row: Mapping[str, Any]) -> None:
        self.tracker.log({**_numbers(row), "step": row["step"]})

    def end(self, summary: Mapping[str, Any]) -> None:
        self.tracker.log({f"best/{name}": value for name, value in summary["best"].items()})

    def close(self) -> None:
        self.tracker.finish()


class WeightsAndBiases(_RunTracker):
    """Weights & Biases."""

    module = "wandb"


class Trackio(_RunTracker):
    """trackio."""

    module = "trackio"
