"""onnxruntime: an ONNX file, and its tool for static quantization."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .base import WEIGHTS, Engine, Run, multiplies_bytes

FILE = "model.onnx"
ONE_FILE = 1_500_000_000
"""Bytes of weights up to which they stand in the file itself; the format ends at 2 GiB."""
PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Operations that are worth int8."""
CLIPS = ("Clip", "Relu")
"""Activations that a product's output is quantized behind, not before: what they cut off would take up the range."""


class OnnxRuntime(Engine):
    name = "onnxruntime"
    precisions = ("fp32", "int8")
    runs_with = ("onnxruntime",)
    writes_with = ("onnx", "onnxscript")

    def write(
        self, program: torch.export.ExportedProgram, folder: Path, images: Sequence[torch.Tensor] | None = None
    ) -> None:
        path = folder / FILE
        write_onnx(program, path)
        if images:
            quantize(path, images)
        elif images is not None:
            store_bytes(path)

    def load(self, folder: Path, threads: int, precision: str) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        if precision == WEIGHTS:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = onnxruntime.InferenceSession(str(folder / FILE), options, providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0].name
        return lambda images: [
            torch.from_numpy(found) for found in session.run(None, {given: images.contiguous().numpy()})
        ]


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """A traced network as ONNX, its input called `images`."""
    size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    torch.onnx.export(
        program,
        program.example_inputs[0] if program.example_inputs else (),
        str(path),
        dynamo=True,
        external_data=size > ONE_FILE,
        verbose=False,
        input_names=["images"],
    )


def quantize(path: Path, images: Sequence[torch.Tensor]) -> None:
    """Make the products of an ONNX file int8, with ranges of what goes into them seen on single images (1, C, H, W).

    Weights have a scale for each output channel; 7 bits of them are used where the processor would saturate.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(images)

        def get_next(self) -> Any:
            image = next(self.rows, None)
            return None if image is None else {"images": image.contiguous().numpy()}

    part = path.with_name(f"int8-{path.name}")
    with quiet():
        quantize_static(
            str(path),
            str(part),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*PRODUCTS, *CLIPS],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=not multiplies_bytes(),
            extra_options={"MatMulConstBOnly": True},
        )
    part.replace(path)


def store_bytes(path: Path) -> None:
    """Store the weights of an ONNX file's products as int8, a scale for each output channel; it computes in fp32."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    weights = {each.name: each for each in graph.initializer}
    axes: dict[str, int] = {}
    for node in graph.node:
        name = node.input[1] if node.op_type in PRODUCTS else ""
        if name in weights and len(weights[name].dims) > 1:
            flipped = any(each.name == "transB" and each.i for each in node.attribute)
            last = node.op_type == "MatMul" or (node.op_type == "Gemm" and not flipped)
            axes[name] = len(weights[name].dims) - 1 if last else 0
    unpacked = []
    for name, axis in axes.items():
        values = numpy_helper.to_array(weights[name])
        others = tuple(place for place in range(values.ndim) if place != axis)
        scale = np.maximum(np.abs(values).max(others), 1e-12) / 127
        shape = [-1 if place == axis else 1 for place in range(values.ndim)]
        small = np.rint(values / scale.reshape(shape)).astype(np.int8)
        graph.initializer.remove(weights[name])
        graph.initializer.append(numpy_helper.from_array(small, f"{name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"))
        graph.initializer.append(numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{name}.zero"))
        parts = [f"{name}.int8", f"{name}.scale", f"{name}.zero"]
        unpacked.append(helper.make_node("DequantizeLinear", parts, [name], axis=axis))
    for place, node in enumerate(unpacked):
        graph.node.insert(place, node)
    onnx.save(model, str(path))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the advice that libraries log at the root."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
