"""Checks that run only where the catalog declares a capability."""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch
import torch.fx

from .model import CLASSES, ModelSubject, same
from .outcome import Check, SkipCheck


@torch.no_grad()
def compile(subject: ModelSubject) -> None:
    """One graph, without breaks; the backend that only traces is enough to show it."""
    model = subject.create().eval()
    x = subject.image(model)
    torch._dynamo.reset()
    same(torch.compile(model, fullgraph=True, backend="eager")(x), model(x), "compiled")


@torch.no_grad()
def export(subject: ModelSubject) -> None:
    """`torch.export` with a batch of any size."""
    model = subject.create().eval()
    x = subject.image(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"The tensor attributes .*_flat_weights")  # torch's own LSTM binds them anew
        program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    more = torch.cat([x, x[:1]])
    same(program.module()(more), model(more), "exported")


@torch.no_grad()
def script(subject: ModelSubject) -> None:
    """TorchScript, in float64: an optimizer of graphs may round otherwise, which deep random networks amplify."""
    model = subject.create().eval().double()
    x = subject.image(model).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(model)
        same(scripted(x), model(x), "scripted")
        features = subject.create(features_only=True).eval().double()
        for ours, level in zip(torch.jit.script(features)(x), features(x), strict=True):
            same(ours, level, "a scripted level")


@torch.no_grad()
def fx(subject: ModelSubject) -> None:
    """The whole forward pass as a graph of torch.fx, for another batch than it was seen with."""
    for model in (subject.create().eval(), subject.create(features_only=True).eval()):
        graph = torch.fx.symbolic_trace(model)
        x = subject.image(getattr(model, "model", model))
        for batch in (x, x[:1]):
            for ours, theirs in zip(listed(graph(batch)), listed(model(batch)), strict=True):
                same(ours, theirs, "traced")


def listed(output: Any) -> list[torch.Tensor]:
    return [output] if isinstance(output, torch.Tensor) else list(output)


@torch.no_grad()
def onnx(subject: ModelSubject) -> None:
    """Through onnxruntime, with a batch of any size."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SkipCheck(f"needs onnxruntime and onnxscript: {error}") from error
    model = subject.create().eval()
    x = subject.image(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
        program: Any = torch.onnx.export(model, (x,), dynamo=True, dynamic_shapes=shapes, verbose=False)
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    more = torch.cat([x, x[:1]])
    result = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: more.numpy()})[0])
    same(result, model(more), "onnxruntime", 1e-3)


@torch.no_grad()
def output_stride(subject: ModelSubject) -> None:
    for stride in (8, 16):
        model = subject.create(output_stride=stride).eval()
        x = subject.image(model)
        if max(model.feature_info.reduction()) > stride:
            raise AssertionError(f"output_stride={stride} leaves a reduction of {max(model.feature_info.reduction())}")
        level = model.forward_intermediates(x, 1, intermediates_only=True)[0]
        if level.shape[-1] != -(x.shape[-1] // -stride):
            raise AssertionError(f"output_stride={stride} gives a map of {level.shape[-1]} for {x.shape[-1]} pixels")


@torch.no_grad()
def set_input_size(subject: ModelSubject) -> None:
    """The model takes another size after being told of it, and at creation."""
    model = subject.create().eval()
    height, width = model.pretrained_cfg["input_size"][1:]
    step = max(model.feature_info.reduction())
    more = -(-64 // step) * step
    size = (height + more, width + more)
    model.set_input_size(size)
    x = torch.randn(1, model.in_chans, *size)
    if model(x).shape != (1, CLASSES):
        raise AssertionError("set_input_size does not lead to logits")
    if tuple(model.pretrained_cfg["input_size"][1:]) != size:
        raise AssertionError("after set_input_size the preprocessing still says the old size")
    if subject.create(img_size=size).eval()(x).shape != (1, CLASSES):
        raise AssertionError("img_size at creation does not lead to logits")
    other = subject.create(**{**model.model_args, "img_size": size}).eval()
    other.load_state_dict(model.state_dict())
    same(other(x), model(x), "a model made as set_input_size left it", 1e-5)


@torch.no_grad()
def bf16(subject: ModelSubject) -> None:
    model = subject.create().eval().to(torch.bfloat16)
    x = subject.image(model).to(torch.bfloat16)
    if not torch.isfinite(model(x)).all():
        raise AssertionError("logits in bfloat16 are not finite")


CHECKS = [
    Check(fn.__name__, "model", fn, capability=fn.__name__)
    for fn in (compile, export, script, fx, onnx, output_stride, set_input_size, bf16)
]
