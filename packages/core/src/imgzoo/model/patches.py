"""The input of networks that take images of any shape as a sequence of patches (NaFlex)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from imgzoo.errors import CapabilityError, UsageError

from .swapping import plain_class, swap_in

FIELD = ("patches", "patch_coord", "patch_valid")
"""What the field calls the three parts in a dict."""


class Patches(NamedTuple):
    """A batch of images as patches, each row padded to the longest.

    `patches` are (B, N, p * p * C), pixels row by row with channels last, or (B, N, p, p, C); `coordinates` (B, N, 2)
    are row and column in the image's own grid; `valid` (B, N) is False where a row was filled up.
    """

    patches: Tensor
    coordinates: Tensor
    valid: Tensor

    @classmethod
    def of(cls, record: Any) -> Patches:
        """`Patches` from themselves, from three tensors, or from a dict with the field's names."""
        if isinstance(record, Mapping):
            missing = [key for key in FIELD if key not in record]
            if missing:
                raise UsageError(f"a record of patches has the tensors {', '.join(FIELD)}; {missing[0]} is missing")
            record = [record[key] for key in FIELD]
        if not isinstance(record, (list, tuple)) or len(record) != 3:
            raise UsageError("patches come as three tensors: patches, coordinates and which of them are valid")
        patches, coordinates, valid = record
        if not patches.shape[:2] == coordinates.shape[:2] == valid.shape or coordinates.shape[2:] != (2,):
            shapes = ", ".join(str(tuple(part.shape)) for part in record)
            raise UsageError(f"patches (B, N, ...), coordinates (B, N, 2) and valid (B, N) do not agree: {shapes}")
        return cls(patches, coordinates, valid)

    def to(self, target: Any) -> Patches:
        """On another device; of another dtype, which only the pixels take."""
        if isinstance(target, torch.dtype):
            return self._replace(patches=self.patches.to(target))
        return Patches(*(part.to(target) for part in self))

    def grids(self) -> Tensor:
        """(B, 2): rows and columns of patches of each image."""
        return self.coordinates.masked_fill(~self.valid[..., None], 0).amax(1) + 1

    def images(self, channels: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images again, those of one shape together: their places (b,) in the batch, and (b, channels, H, W).

        Raises `UsageError` for an image of which a patch is missing.
        """
        patches, grids = self.patches.flatten(2), self.grids()
        side = round((patches.shape[2] / channels) ** 0.5)
        if side * side * channels != patches.shape[2]:
            raise UsageError(f"patches of {patches.shape[2]} values are no squares of {channels} channels")
        for grid in grids.unique(dim=0):
            rows, columns = grid.tolist()
            places = (grids == grid).all(1).nonzero()[:, 0]
            valid = self.valid[places]
            if not bool((valid.sum(1) == rows * columns).all()):
                raise UsageError("an image of patches has a hole: only a network made for patches takes it")
            order = self.coordinates[places][..., 0] * columns + self.coordinates[places][..., 1]
            order = order.masked_fill(~valid, rows * columns).argsort(1)[:, : rows * columns]
            cut = patches[places].gather(1, order[..., None].expand(-1, -1, patches.shape[2]))
            cut = cut.view(-1, rows, columns, side, side, channels).permute(0, 5, 1, 3, 2, 4)
            yield places, cut.reshape(len(places), channels, rows * side, columns * side)


def is_patches(x: Any) -> bool:
    """Whether a network's input is patches rather than images."""
    return isinstance(x, (tuple, list, Mapping))


class ShapeByShape:
    """A network of images that takes `Patches` too: it sees images of one shape together, each as if it came alone."""

    in_chans: int

    def forward(self, x: Any) -> Any:
        if not is_patches(x):
            return super().forward(x)  # type: ignore[misc]
        x = Patches.of(x)
        answers, order = [], []
        for places, images in x.images(self.in_chans):
            answers.append(super().forward(images))  # type: ignore[misc]
            order.append(places)
        back = torch.cat(order).argsort()
        if isinstance(answers[0], Tensor):
            return torch.cat(answers)[back]
        return tuple(torch.cat(parts)[back] for parts in zip(*answers, strict=True))


def take_patches(model: nn.Module) -> nn.Module:
    """Let a network take `Patches` of images of mixed shapes, with its own weights; its keys stay.

    Networks without position tables and those of tokens with `dynamic_img_size` can, others raise `CapabilityError`.
    Images of one shape are computed together: a batch of many shapes takes as many passes, and fills up nothing.
    """
    from imgzoo.options import parameters_of

    from .tokens import TokenModel

    if getattr(model, "takes_patches", False):
        return model
    if hasattr(model, "img_size"):
        options = parameters_of(plain_class(model))[0] if isinstance(model, TokenModel) else ()
        if "dynamic_img_size" not in options:
            name = getattr(model, "name", type(model).__name__)
            raise CapabilityError(f"{name} takes images of one size: choose a network with dynamic_img_size, as vit_*")
        model.take_any_size()  # type: ignore[operator]
    swap_in(model, ShapeByShape)
    return model
