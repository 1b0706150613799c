"""torch's compiler ahead of time: C++ for this processor, with the weights frozen into it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from imgzoo.errors import UsageError

from .base import Engine, Run, processor, torch_run

FILE = "compiled.pt2"
OPTIONS = {"freezing": True, "cpp.dynamic_threads": True}


class Inductor(Engine):
    name = "inductor"
    precisions = ("fp32", "bf16", "fp16")
    runs_with = ("torch",)
    writes_with = ("torch._inductor",)
    slow = True

    def missing(self, *modules: str) -> str | None:
        if not modules:
            return None
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except Exception:  # its kind differs from release to release
            return "engine inductor needs a C++ compiler, such as g++: install one, or choose another engine"
        return None

    def write(
        self, program: torch.export.ExportedProgram, folder: Path, images: Sequence[torch.Tensor] | None = None
    ) -> None:
        from torch._inductor import aoti_compile_and_package

        with torch.no_grad():
            aoti_compile_and_package(program, package_path=str(folder / FILE), inductor_configs=OPTIONS)

    def load(self, folder: Path, threads: int, precision: str) -> Run:
        from torch._inductor import aoti_load_package

        return torch_run(aoti_load_package(str(folder / FILE)), threads)

    def facts(self) -> dict[str, str]:
        return {**super().facts(), "processor": " ".join(sorted(processor()))}

    def check(self, facts: dict[str, str]) -> None:
        if facts.get("torch") != str(torch.__version__):
            raise UsageError(
                f"it was compiled by torch {facts.get('torch')}, this is {torch.__version__}: export it again here"
            )
        if lacks := {*facts.get("processor", "").split()} - processor():
            raise UsageError(
                f"it was compiled for a processor with {min(lacks)}, which this one lacks: export it again here"
            )
