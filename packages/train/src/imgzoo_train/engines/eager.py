"""torch as it is: the traced network, operation by operation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from .base import Engine, Run, torch_run

FILE = "program.pt2"


class Eager(Engine):
    name = "eager"
    precisions = ("fp32", "bf16", "fp16")
    runs_with = ("torch",)

    def write(
        self, program: torch.export.ExportedProgram, folder: Path, images: Sequence[torch.Tensor] | None = None
    ) -> None:
        torch.export.save(program, folder / FILE)

    def load(self, folder: Path, threads: int, precision: str) -> Run:
        return torch_run(torch.export.load(folder / FILE).module(), threads)
