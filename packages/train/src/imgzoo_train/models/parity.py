"""How far two models' answers are apart, and the seeded images that they are compared on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from imgzoo.errors import UsageError


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


def example_images(model: Any, count: int = 4, size: Sequence[int] | None = None) -> torch.Tensor:
    """Seeded random images (B, C, H, W) of the model's input size, or another (C, H, W)."""
    shape: Sequence[int] = size or model.pretrained_cfg["input_size"]
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *shape, generator=generator).to(parameter.device, parameter.dtype)


def checked_example(model: Any, example: Any) -> torch.Tensor:
    """Images (B, C, H, W) that the model takes, of torch or numpy; raises `UsageError` for any other."""
    dtype = precision_of(model)
    chans = getattr(model, "in_chans", None) or model.pretrained_cfg["input_size"][0]
    try:
        images = torch.as_tensor(example)
        fits = images.ndim == 4 and len(images) > 0 and images.shape[1] == chans and images.dtype == dtype
        given = f"{tuple(images.shape)} of {named(images.dtype)}"
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"the example is a batch of images, not {type(example).__name__}") from None
    if not fits:
        raise UsageError(f"the example is a batch (B, {chans}, H, W) of {named(dtype)}, not {given}")
    if not bool(images.isfinite().all()):
        raise UsageError("the example holds values that are not finite: take images as the model gets them")
    return images


def precision_of(model: Any) -> torch.dtype:
    """What a model computes in."""
    return next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)


def named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@torch.inference_mode()
def compare(left: Any, right: Any, images: torch.Tensor, folded: int = 0, rewritten: int = 0) -> Parity:
    """Run both on the same images and measure how far the answers are apart: the worst output where there are more."""
    pairs = zip(outputs_of(left(images)), outputs_of(right(images)), strict=True)
    found = [difference(wanted, answer, folded, rewritten) for wanted, answer in pairs]
    return max(found, key=lambda each: (each.relative_difference != each.relative_difference, each.relative_difference))


def outputs_of(output: Any) -> list[torch.Tensor]:
    """What a model returned, as a list."""
    return list(output) if isinstance(output, (tuple, list)) else [output]


def first_output(output: Any) -> torch.Tensor:
    """The logits of a model that may return several."""
    return outputs_of(output)[0]


def difference(wanted: torch.Tensor, found: torch.Tensor, folded: int = 0, rewritten: int = 0) -> Parity:
    """`Parity` of two (B, C) outputs."""
    wanted, found = wanted.detach().double(), found.detach().double()
    gap = float((wanted - found).abs().max())
    same = (wanted.flatten(1).argmax(1) == found.flatten(1).argmax(1)).double().mean()
    return Parity(gap, gap / max(1e-12, float(wanted.abs().max())), float(same), folded, rewritten)


def shapes(images: torch.Tensor, sizes: Sequence[int]) -> list[torch.Tensor]:
    """Batches of other sizes made from `images`."""
    return [images.repeat(-(-size // len(images)), *[1] * (images.ndim - 1))[:size] for size in sizes]


@torch.inference_mode()
def seconds(model: Callable[[torch.Tensor], Any], example: torch.Tensor, runs: int = 3) -> float:
    """The least time of a forward pass, after one that is not counted."""
    model(example)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        model(example)
        times.append(time.perf_counter() - start)
    return min(times)
