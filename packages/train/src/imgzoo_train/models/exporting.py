"""Write a model as torch.export, ONNX or TorchScript, then run the file and report how far its answers are apart."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imgzoo.errors import ImgzooError, MissingDependencyError, UsageError
from imgzoo.text import json_text
from imgzoo_data import resolve_data_config
from imgzoo_train.engines.base import ExportError
from imgzoo_train.files.storage import StorageError, is_disk_full, replace_text

from .answers import answer_of
from .modes import evaluating
from .parity import checked_example, difference, example_images, first_output, shapes
from .sequences import OnPatches, example_patches, patch_of

Inputs = dict[str, torch.Tensor]
Runner = Callable[..., torch.Tensor]
EXTRA = "imgzoo.json"
SUFFIXES = {"torch": ".pt2", "onnx": ".onnx", "torchscript": ".ts"}


def export(
    model: Any,
    path: Path,
    format: str = "onnx",
    *,
    example: torch.Tensor | None = None,
    dynamic: bool = True,
    tolerance: float = 1e-3,
    script: bool = False,
    whole: bool = False,
    sequence: int | None = None,
    step: Callable[[str], Any] = lambda text: None,
) -> dict[str, Any]:
    """Write `model` to `path`; returns the parity report, which also lies beside it as `<path>.json`.

    Report and file hold what the outputs are - task, classes, activation - and how images are prepared: ONNX in its
    metadata, the others in an extra file `imgzoo.json`. `whole` puts normalization and activation into the file: images
    of 0 to 1 in, probabilities or values out.

    With `sequence` the file takes patches of images of mixed shapes, the three tensors of `imgzoo.model.Patches`, of
    any number where `dynamic`; for networks made for patches.

    The report has the largest difference and top-1 agreement on seeded images for batches of 1, 2 and 5 (`dynamic`),
    run through the file itself: onnxruntime for ONNX, torch otherwise. `step` is told what is begun. Raises
    `ExportError` when the format cannot hold the model or the relative difference exceeds `tolerance`.
    """
    with evaluating(model):
        return _exported(model, path, format, example, dynamic, tolerance, script, whole, sequence, step)


def _exported(
    model: Any,
    path: Path,
    format: str,
    example: torch.Tensor | None,
    dynamic: bool,
    tolerance: float,
    script: bool,
    whole: bool,
    sequence: int | None,
    step: Callable[[str], Any],
) -> dict[str, Any]:
    example = example_images(model, 2) if example is None else checked_example(model, example)
    record, inputs = describe(model, whole), {"images": example}
    if sequence is not None:
        if whole or not model.takes_patches:
            why = "--whole takes images" if whole else f"{model.name} is a network of images"
            raise UsageError(f"{why}: leave --sequence out")
        inputs = example_patches(model, sequence, len(example))._asdict()
        record |= {"sequence": sequence, "patch": patch_of(model)}
        model = OnPatches(model)
    if whole:
        model, inputs = Whole(model), {"images": example.sigmoid()}
    step(f"writing {path.name} as {format}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runner = WRITERS[format](model, path, inputs, dynamic, script, record)
    except ImgzooError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines()
        reason = text[0] if text else type(error).__name__
        if is_disk_full(error):
            path.unlink(missing_ok=True)
            raise StorageError(f"cannot write {path} (no space left); choose another --output") from error
        raise ExportError(f"{format} cannot hold this model ({reason})") from error
    report: dict[str, Any] = {
        "format": format,
        "file": path.name,
        "bytes": path.stat().st_size,
        **record,
        "batches": {},
    }
    batches = (1, 2, 5) if dynamic else (len(example),)
    for count, *parts in zip(batches, *(shapes(part, batches) for part in inputs.values())):
        step(f"comparing the answers to {count} images")
        with torch.inference_mode():
            wanted = first_output(model(*parts))
        report["batches"][str(count)] = difference(wanted, runner(*parts)).as_dict()
    gaps = [row["relative_difference"] for row in report["batches"].values()]
    worst = max(gaps, key=lambda gap: (gap != gap, gap))  # what is no number is the worst
    report |= {"dynamic_batch": dynamic, "relative_difference": worst, "tolerance": tolerance}
    replace_text(path.with_name(path.name + ".json"), json_text(report))
    if worst != worst:
        raise ExportError(f"{path} answers with what is no finite number, or the model itself does")
    if not worst <= tolerance:
        raise ExportError(f"{path} answers differently: by {worst:.2g} of the largest output, more than {tolerance:g}")
    return report


def describe(model: Any, whole: bool) -> dict[str, Any]:
    """What the outputs of a file are, and what it wants to see."""
    config = resolve_data_config(model).to_dict()
    inside = "inside the file" if whole else "before the file"
    return {**answer_of(model).record(), "outputs": "answers" if whole else "logits", "normalization": inside, **config}


class Whole(nn.Module):
    """A model with its normalization and activation: images (B, C, H, W) of 0 to 1 -> probabilities or values."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        config, self.model, self.answer = resolve_data_config(model), model, answer_of(model)
        self.register_buffer("mean", torch.tensor(config.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.answer.activate(first_output(self.model((images - self.mean) / self.std)))


def _write_torch(
    model: Any, path: Path, inputs: Inputs, dynamic: bool, script: bool, record: Mapping[str, Any]
) -> Runner:
    program = torch.export.export(model, (*inputs.values(),), dynamic_shapes=_free(inputs) if dynamic else None)
    torch.export.save(program, path, extra_files={EXTRA: json.dumps(record)})
    loaded: Any = torch.export.load(path).module()
    return lambda *parts: first_output(loaded(*parts))


def _free(inputs: Inputs) -> tuple[dict[int, Any], ...]:
    """The dimensions of each input that a file leaves open: the batch, and the length of sequences."""
    open_sides = [torch.export.Dim("batch", min=1), torch.export.Dim("length", min=2)]
    return tuple(dict(enumerate(open_sides[: 1 if len(inputs) == 1 else 2])) for _ in inputs)


def _write_onnx(
    model: Any, path: Path, inputs: Inputs, dynamic: bool, script: bool, record: Mapping[str, Any]
) -> Runner:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("ONNX export needs more: pip install imgzoo-train[onnx]") from error
    torch.onnx.export(
        model,
        (*inputs.values(),),
        str(path),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=[*inputs],
        output_names=[str(record["outputs"])],
        dynamic_shapes=_free(inputs) if dynamic else None,
    )
    written = onnx.load(str(path))
    onnx.helper.set_model_props(written, {key: _text(value) for key, value in record.items()})
    onnx.save(written, str(path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *parts: torch.from_numpy(
        session.run(None, {name: part.numpy() for name, part in zip(names, parts, strict=True)})[0]
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _write_torchscript(
    model: Any, path: Path, inputs: Inputs, dynamic: bool, script: bool, record: Mapping[str, Any]
) -> Runner:
    with torch.no_grad():
        example = (*inputs.values(),)
        scripted = torch.jit.script(model) if script else torch.jit.trace(model, example, check_trace=False)
    torch.jit.save(scripted, str(path), _extra_files={EXTRA: json.dumps(record)})
    loaded: Any = torch.jit.load(str(path))
    return lambda *parts: first_output(loaded(*parts))


WRITERS: dict[str, Any] = {"torch": _write_torch, "onnx": _write_onnx, "torchscript": _write_torchscript}
