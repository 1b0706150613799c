"""OpenVINO: its intermediate representation, from torch or, in int8, from the ONNX file that onnxruntime quantizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .base import Engine, Run
from .files import Scratch

FILE = "model.xml"


class OpenVino(Engine):
    name = "openvino"
    precisions = ("fp32", "bf16", "int8")
    runs_with = ("openvino",)
    quantizes_with = ("onnxruntime", "onnx", "onnxscript")
    casts = False

    def write(
        self, program: torch.export.ExportedProgram, folder: Path, images: Sequence[torch.Tensor] | None = None
    ) -> None:
        import openvino  # pyright: ignore[reportMissingImports]

        given: Any = program
        if images is not None:
            from .onnxruntime import FILE as ONNX
            from .onnxruntime import OnnxRuntime

            scratch = Scratch()
            OnnxRuntime().write(program, scratch.path, images)
            given = scratch.path / ONNX
        openvino.save_model(openvino.convert_model(given), folder / FILE, compress_to_fp16=False)

    def load(self, folder: Path, threads: int, precision: str) -> Run:
        import openvino  # pyright: ignore[reportMissingImports]

        options = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        request = openvino.Core().compile_model(folder / FILE, "CPU", options).create_infer_request()

        def run(images: torch.Tensor) -> list[torch.Tensor]:
            found = request.infer({0: images.contiguous().numpy()}, share_inputs=True)
            return [torch.from_numpy(found[place]) for place in range(len(found))]

        return run
