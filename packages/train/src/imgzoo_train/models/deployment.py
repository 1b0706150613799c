"""Make a trained model fast to run: fold, reparameterize, lay out, lower precision, compile; with a parity report."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from imgzoo.errors import UsageError
from imgzoo.memory import keep_memory

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Parity:
    """How the deployed model differs from the model: largest difference, relative to the largest output, and top-1."""

    max_difference: float
    relative_difference: float
    top1_agreement: float
    """Share of samples with the same answer."""
    folded: int = 0
    reparameterized: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def deploy(
    model: Any,
    *,
    channels_last: bool = True,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    example: torch.Tensor | None = None,
    tolerance: float | None = None,
) -> Any:
    """A copy of `model` for inference, with its parity to the original as `deployed.parity`.

    Batch norms are folded into the layer before them where that is proven to change nothing but rounding, modules with
    a `reparameterize()` are rewritten, weights are laid out channels-last, and cast to `dtype`; on a CPU where that was
    measured to be no faster the model computes in float32 with the weights rounded, and a warning says so. On a CPU the
    process keeps its freed memory from then on (`imgzoo.memory.keep_memory`). `example` (B, C, H, W) is what parity and
    speed are measured on; random images by default. Raises `UsageError` when the relative difference exceeds
    `tolerance` (1e-3, or 0.1 in low precision).
    """
    keep_memory()
    original = model.eval()
    deployed: Any = copy.deepcopy(original).eval().requires_grad_(False)
    example = example_images(model) if example is None else example
    rewritten = reparameterize(deployed)
    folded = fold_batch_norms(deployed, example[:1])
    if channels_last:
        deployed = deployed.to(memory_format=torch.channels_last)
    if dtype is not None:
        deployed = lower(deployed, dtype, example)
    if compile:
        deployed = torch.compile(deployed)
    parity = compare(original, deployed, example, folded, rewritten)
    limit = tolerance if tolerance is not None else (1e-3 if dtype in (None, torch.float32) else 0.1)
    if not parity.relative_difference <= limit:
        raise UsageError(
            f"the deployed model differs by {parity.relative_difference:.2g} of its largest output, more than "
            f"{limit:g}; deploy it with fewer options, or raise tolerance"
        )
    deployed.parity = parity
    return deployed


def example_images(model: Any, count: int = 4) -> torch.Tensor:
    """Seeded random images (B, C, H, W) of the model's input size."""
    size = model.pretrained_cfg["input_size"]
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *size, generator=generator).to(parameter.device, parameter.dtype)


class LowPrecision(nn.Module):
    """A model in another dtype that takes and returns float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model.to(dtype), dtype

    def forward(self, images: torch.Tensor) -> Any:
        output = self.model(images.to(self.dtype))
        return [item.float() for item in output] if isinstance(output, (tuple, list)) else output.float()


def lower(model: nn.Module, dtype: torch.dtype, example: torch.Tensor) -> LowPrecision:
    """The model in `dtype`, or in float32 with weights rounded to `dtype` where a CPU is not faster with it."""
    low = LowPrecision(model, dtype)
    if example.device.type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return low
    taken = seconds(low, example)
    exact = LowPrecision(model, torch.float32)
    ratio = taken / seconds(exact, example)
    if ratio < 1:
        return LowPrecision(model, dtype)
    short = str(dtype).removeprefix("torch.")
    warnings.warn(
        f"{short} takes {ratio:.1f} times as long as float32 here: the weights are rounded to {short}, and the model "
        "computes in float32",
        stacklevel=3,
    )
    return exact


@torch.inference_mode()
def seconds(model: nn.Module, example: torch.Tensor, runs: int = 3) -> float:
    """The least time of a forward pass, after one that is not counted."""
    model(example)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        model(example)
        times.append(time.perf_counter() - start)
    return min(times)


def reparameterize(model: nn.Module) -> int:
    """Call every module's own `reparameterize()`, innermost first; returns how many had one."""
    count = 0
    for module in reversed(list(model.modules())):
        rewrite = getattr(module, "reparameterize", None)
        if callable(rewrite) and module is not model:
            rewrite()
            count += 1
    return count


@torch.no_grad()
def fold_batch_norms(model: nn.Module, example: torch.Tensor) -> int:
    """Fold each batch norm into the convolution or linear layer that alone feeds it; returns how many.

    What feeds what is seen in one run on `example` (B, C, H, W): a pair is folded when the norm's input is the layer's
    output, nothing else reads that output, and both run once. Activations inside a norm module stay.
    """
    pairs = feeding_pairs(model, example)
    names = {id(module): name for name, module in model.named_modules()}
    for layer, norm in pairs:
        _fold(layer, norm)
        _replace(model, names[id(norm)], norm)
    return len(pairs)


def feeding_pairs(model: nn.Module, example: torch.Tensor) -> list[tuple[Any, Any]]:
    """`(layer, batch norm)` pairs of which the layer's output goes to the norm and nowhere else."""
    outputs: dict[int, tuple[nn.Module, torch.Tensor]] = {}
    found: list[tuple[Any, Any]] = []
    runs: dict[nn.Module, int] = {}

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        runs[module] = runs.get(module, 0) + 1
        if isinstance(module, CONVS) and isinstance(output, torch.Tensor):
            outputs[id(output)] = (module, output)

    def look(module: nn.Module, inputs: Any) -> None:
        source = outputs.get(id(inputs[0])) if inputs else None
        if source is not None and source[1] is inputs[0]:
            found.append((source[0], module))

    handles = []
    for module in model.modules():
        if isinstance(module, CONVS):
            handles.append(module.register_forward_hook(watch))
        elif isinstance(module, BATCH_NORMS):
            handles.append(module.register_forward_pre_hook(look))
            handles.append(module.register_forward_hook(watch))
    try:
        with UseCounter() as uses:
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    readers = {id(layer): uses.count(output) for layer, output in outputs.values()}
    return [
        (layer, norm)
        for layer, norm in found
        if runs[layer] == runs[norm] == 1 and readers[id(layer)] == 1 and _foldable(layer, norm)
    ]


class UseCounter(TorchDispatchMode):
    """Counts in how many operations each tensor is read; keeps tensors alive, so that ids stay unique."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: dict[int, int] = {}
        self.kept: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs or {})):
            self.reads[id(tensor)] = self.reads.get(id(tensor), 0) + 1
            self.kept.append(tensor)
        return func(*args, **(kwargs or {}))

    def count(self, tensor: torch.Tensor) -> int:
        return self.reads.get(id(tensor), 0)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _foldable(layer: Any, norm: Any) -> bool:
    """Whether the layer's weights may be changed: shared by nothing, and the norm has fixed statistics."""
    return (
        norm.running_mean is not None
        and layer.weight.shape[0] == norm.num_features
        and not hasattr(layer, "parametrizations")
        and type(layer).forward in (kind.forward for kind in CONVS)
    )


def _fold(layer: Any, norm: Any) -> None:
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    weight = layer.weight.double() * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    bias = shift if layer.bias is None else layer.bias.double() * scale + shift
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    layer.bias = nn.Parameter(bias.to(dtype), requires_grad=False)


def _replace(model: nn.Module, name: str, norm: Any) -> None:
    """Put what the norm did besides normalizing (an activation, dropout) in its place."""
    rest = [module for module in (getattr(norm, "drop", None), getattr(norm, "act", None)) if module is not None]
    rest = [module for module in rest if not isinstance(module, nn.Identity)]
    replacement = nn.Identity() if not rest else rest[0] if len(rest) == 1 else nn.Sequential(*rest)
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, replacement)


@torch.inference_mode()
def compare(left: Any, right: Any, images: torch.Tensor, folded: int = 0, rewritten: int = 0) -> Parity:
    """Run both on the same images and measure how far the answers are apart."""
    return difference(first_output(left(images)), first_output(right(images)), folded, rewritten)


def first_output(output: Any) -> torch.Tensor:
    """The logits of a model that may return several."""
    return output[0] if isinstance(output, (tuple, list)) else output


def difference(wanted: torch.Tensor, found: torch.Tensor, folded: int = 0, rewritten: int = 0) -> Parity:
    """`Parity` of two (B, C) outputs."""
    wanted, found = wanted.detach().double(), found.detach().double()
    gap = float((wanted - found).abs().max())
    same = (wanted.flatten(1).argmax(1) == found.flatten(1).argmax(1)).double().mean()
    return Parity(gap, gap / max(1e-12, float(wanted.abs().max())), float(same), folded, rewritten)


def shapes(images: torch.Tensor, sizes: Sequence[int]) -> list[torch.Tensor]:
    """Batches of other sizes made from `images`."""
    return [images.repeat(-(-size // len(images)), *[1] * (images.ndim - 1))[:size] for size in sizes]
