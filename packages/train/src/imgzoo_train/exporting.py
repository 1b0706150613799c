"""Write a model as torch.export, ONNX or TorchScript, then run the file and report how far its answers are apart."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import ImgzooError, MissingDependencyError

from .deployment import difference, example_images, first_output, shapes

Runner = Callable[[torch.Tensor], torch.Tensor]
SUFFIXES = {"torch": ".pt2", "onnx": ".onnx", "torchscript": ".ts"}


class ExportError(ImgzooError):
    """A model cannot be written in this format, or answers differently in it."""

    exit_code = 1


def export(
    model: Any,
    path: Path,
    format: str = "onnx",
    *,
    example: torch.Tensor | None = None,
    dynamic: bool = True,
    tolerance: float = 1e-3,
    script: bool = False,
) -> dict[str, Any]:
    """Write `model` to `path`; returns the parity report, which also lies beside it as `<path>.json`.

    The report has the largest difference and top-1 agreement on seeded images for batches of 1, 2 and 5 (`dynamic`),
    run through the file itself: onnxruntime for ONNX, torch otherwise. Raises `ExportError` when the format cannot hold
    the model or the relative difference exceeds `tolerance`.
    """
    model = model.eval()
    example = example_images(model, 2) if example is None else example
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runner = WRITERS[format](model, path, example, dynamic, script)
    except ImgzooError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines()
        reason = text[0] if text else type(error).__name__
        raise ExportError(f"{format} cannot hold this model ({reason})") from error
    report: dict[str, Any] = {"format": format, "file": path.name, "bytes": path.stat().st_size, "batches": {}}
    batches = (1, 2, 5) if dynamic else (len(example),)
    for images in shapes(example, batches):
        with torch.inference_mode():
            wanted = first_output(model(images))
        report["batches"][str(len(images))] = difference(wanted, runner(images)).as_dict()
    worst = max(row["relative_difference"] for row in report["batches"].values())
    report |= {"dynamic_batch": dynamic, "relative_difference": worst, "tolerance": tolerance}
    path.with_name(path.name + ".json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    if not worst <= tolerance:
        raise ExportError(f"{path} answers differently: by {worst:.2g} of the largest output, more than {tolerance:g}")
    return report


def _write_torch(model: Any, path: Path, example: torch.Tensor, dynamic: bool, script: bool) -> Runner:
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},) if dynamic else None)
    torch.export.save(program, path)
    loaded: Any = torch.export.load(path).module()
    return lambda images: first_output(loaded(images))


def _write_onnx(model: Any, path: Path, example: torch.Tensor, dynamic: bool, script: bool) -> Runner:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("ONNX export needs more: pip install imgzoo-train[onnx]") from error
    batch = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        model,
        (example,),
        str(path),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: batch},) if dynamic else None,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def _write_torchscript(model: Any, path: Path, example: torch.Tensor, dynamic: bool, script: bool) -> Runner:
    with torch.no_grad():
        scripted = torch.jit.script(model) if script else torch.jit.trace(model, example, check_trace=False)
    torch.jit.save(scripted, str(path))
    loaded: Any = torch.jit.load(str(path))
    return lambda images: first_output(loaded(images))


WRITERS: dict[str, Any] = {"torch": _write_torch, "onnx": _write_onnx, "torchscript": _write_torchscript}
