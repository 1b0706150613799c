"""What an engine is: it writes a network that torch.export has traced into a folder, and runs what stands there."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import ImgzooError, MissingDependencyError, UsageError
from imgzoo.options import plain_numbers

Run = Callable[[torch.Tensor], list[torch.Tensor]]
"""Images (B, C, H, W) of float32 on the processor -> the network's outputs."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
WEIGHTS = "int8 weights"
"""The precision of a network that computes in fp32 with weights stored in int8."""
CPUINFO = Path("/proc/cpuinfo")


class ExportError(ImgzooError):
    """A model cannot be written in this form, or answers differently in it."""

    exit_code = 1


class Engine:
    """One way to run a network. What is written is all that `load` needs: neither the model nor its code."""

    name = ""
    precisions: tuple[str, ...] = ("fp32",)
    runs_with: tuple[str, ...] = ()
    """Modules that `load` imports."""
    writes_with: tuple[str, ...] = ()
    """Modules that `write` imports besides, and `quantizes_with` where it quantizes."""
    quantizes_with: tuple[str, ...] = ()
    casts = True
    """Whether low precision is in the traced network; otherwise the engine itself lowers what it loads."""
    slow = False
    """Whether writing takes most of a minute."""

    def missing(self, *modules: str) -> str | None:
        """A sentence that says what to install; None where nothing is missing, `modules` besides what runs a file."""
        gone = [name for name in (*self.runs_with, *modules) if importlib.util.find_spec(name) is None]
        return f"engine {self.name} needs {gone[0]}: pip install imgzoo-train[{self.name}]" if gone else None

    def require(self, *modules: str) -> None:
        """Raise `MissingDependencyError` where something is to be installed."""
        if lacks := self.missing(*modules):
            raise MissingDependencyError(lacks)

    def write(
        self, program: torch.export.ExportedProgram, folder: Path, images: Sequence[torch.Tensor] | None = None
    ) -> None:
        """Write the network; in int8 with `images`, single ones (1, C, H, W) to calibrate on, and with none at all its
        weights alone.
        """
        raise NotImplementedError

    def load(self, folder: Path, threads: int, precision: str) -> Run:
        """Make what is written ready to run with that many threads."""
        raise NotImplementedError

    def facts(self) -> dict[str, str]:
        """What stood behind a file: versions of libraries."""
        return {name: str(getattr(importlib.import_module(name), "__version__", "")) for name in self.runs_with}

    def check(self, facts: dict[str, str]) -> None:
        """Raise `UsageError` where a file with these facts cannot run here."""


def torch_run(call: Callable[..., Any], threads: int) -> Run:
    """A function of torch as a `Run` with a number of threads of its own."""

    def run(images: torch.Tensor) -> list[torch.Tensor]:
        with torch_threads(threads), torch.no_grad():
            found = call(images)
        return list(found) if isinstance(found, (tuple, list)) else [found]

    return run


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads in this block."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def checked_count(value: Any, name: str) -> int | None:
    """A number of threads or images, as Python's; raises `UsageError` for one that is none."""
    value = plain_numbers(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UsageError(f"{name} must be at least 1, not {value!r}; leave it out for {MEANT[name]}")
    return value


MEANT = {"threads": "as many as torch uses", "batch": "any number of images"}


def processor() -> frozenset[str]:
    """What instructions the processor says to have; empty where the system does not list them."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.is_file() else []
    named = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(named, "").split())


def multiplies_bytes() -> bool:
    """Whether int8 products are summed in 32 bits by one instruction; otherwise pairs of them saturate in 16."""
    return bool(processor() & {"avx512_vnni", "avx_vnni", "asimddp"})
