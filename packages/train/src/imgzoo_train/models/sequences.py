"""Training and scoring on images at their own shape, as sequences of patches (NaFlex, arXiv:2307.06304, 2502.14786)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from imgzoo.errors import UsageError
from imgzoo.model import Patches, take_patches
from imgzoo_train.config.settings import Config
from imgzoo_train.ranks.world import World


def patch_of(model: Any) -> int:
    """Side of the square patches that a network's images are cut into; its largest reduction where it has none."""
    side: Any = getattr(model, "patch_size", None) or max(model.feature_info.reduction())
    sides: tuple[int, ...] = (side,) if isinstance(side, int) else tuple(side)
    if len({*sides}) > 1:
        raise UsageError(f"sequences are of square patches; those of {model.name} are {' x '.join(map(str, sides))}")
    return sides[0]


def begin(model: Any, lengths: Sequence[int]) -> Any:
    """Let the model take sequences, and remember the longest with its preprocessing."""
    if lengths:
        patch_of(take_patches(model))
        model.pretrained_cfg = {**model.pretrained_cfg, "sequence": max(lengths)}
    return model


def asked(model: Any, length: int | None) -> tuple[int, int] | None:
    """(patch, most patches) that a model is scored with: as asked, or as trained; None for images of one size."""
    length = model.pretrained_cfg.get("sequence", 0) if length is None else length
    if not length:
        return None
    begin(model, [length])
    return patch_of(model), length


def size_schedule(config: Config, patch: int, samples: int, world: World) -> tuple[Any, int | None]:
    """What batches of several sizes are drawn from, and the steps of an epoch where batches differ in number.

    Sequences of any length have about as many patches a batch as `--batch-size` of the longest.
    """
    from imgzoo_data import SizeSchedule
    from imgzoo_data.order import Choice

    part = config.data
    if len(part.sequence) > 1:
        longest = max(part.sequence)
        schedule = SizeSchedule.sequences(part.sequence, part.batch_size * longest, patches=(patch,))
        mean = sum(choice.batch_size for choice in schedule.choices) / len(schedule.choices)
        return schedule, max(1, round(samples / (mean * world.size)))
    if part.sizes:
        choices = tuple(Choice((size, size), part.batch_size) for size in part.sizes)
        return SizeSchedule(choices, schedule="progressive", epochs=config.run.epochs, random_mix=0, spread=1e-3), None
    return None, None


def by_shape(images: Sequence[torch.Tensor]) -> list[tuple[list[int], torch.Tensor]]:
    """Images (C, H, W) of one shape stacked together, with their places."""
    groups: dict[Any, list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(image.shape, []).append(place)
    return [(places, torch.stack([images[place] for place in places])) for places in groups.values()]


def example_patches(model: Any, length: int, count: int = 2) -> Patches:
    """Seeded patches of images of several shapes, as `example_images` makes images."""
    side, generator = patch_of(model), torch.Generator().manual_seed(0)
    columns = max(1, int(length**0.5))
    coordinates = torch.stack([torch.arange(length) // columns, torch.arange(length) % columns], 1).repeat(count, 1, 1)
    valid = torch.ones(count, length, dtype=torch.bool)
    valid[1::2, (length // columns // 2 or 1) * columns :] = False  # every other image is half as high
    pixels = torch.randn(count, length, side * side * model.in_chans, generator=generator)
    return Patches(pixels * valid[..., None], coordinates, valid)


class OnPatches(nn.Module):
    """A network of patches as a function of three tensors, which any format of a file can hold."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, patches: torch.Tensor, coordinates: torch.Tensor, valid: torch.Tensor) -> Any:
        return self.model(Patches(patches, coordinates, valid))
