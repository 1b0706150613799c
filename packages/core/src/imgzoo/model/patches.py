"""The input of networks that take images of any shape as a sequence of patches (NaFlex)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


def laid_back(x: Patches, places: Tensor, tokens: Tensor, prefix: int) -> Tensor:
    """Tokens (b, prefix + h * w, C) of the images at `places` as patches lie in a batch, (b, prefix + N, C): zeros
    where a row was filled up.

    Raises `UsageError` for tokens that are not one for each patch.
    """
    grids, valid = x.grids()[places], x.valid[places]
    if tokens.ndim != 3 or tokens.shape[1] - prefix != int(grids[0].prod()):
        raise UsageError("features of patches are tokens, one for each patch: take those of images, shape by shape, or "
                         "call eval() where patch_drop_rate drops some")  # fmt: skip
    coordinates = x.coordinates[places]
    cells = (coordinates[..., 0] * grids[:, 1:] + coordinates[..., 1]).masked_fill(~valid, 0)[..., None]
    of_patches = tokens[:, prefix:].gather(1, cells.expand(-1, -1, tokens.shape[2]))
    return torch.cat([tokens[:, :prefix], of_patches.masked_fill(~valid[..., None], 0)], dim=1)


class ShapeByShape:
    """A network of images that takes `Patches` too: it sees images of one shape together, each as if it came alone."""

    in_chans: int

    def forward_features(self, x: Any) -> Any:
        """Of patches their tokens (B, prefix + N, C), zeros where a row was filled up."""
        if not is_patches(x):
            return super().forward_features(x)  # type: ignore[misc]
        x, prefix = Patches.of(x), getattr(self, "num_prefix_tokens", 0)
        found: list[tuple[Tensor, Any]] = []
        for places, images in x.images(self.in_chans):
            tokens = self.off_grid(super().forward_features(images))  # type: ignore[misc]
            found.append((places, laid_back(x, places, tokens, prefix)))
        return in_order(found)

    def off_grid(self, tokens: Tensor) -> Tensor:
        """Tokens that stand on their grid (b, h, w, C) as a sequence; others as they are."""
        return tokens.flatten(1, 2) if getattr(self, "channels_last", False) and tokens.ndim == 4 else tokens

    def forward_head(self, x: Tensor, pre_logits: bool = False, valid: Tensor | None = None) -> Tensor:
        """`valid` (B, N) leaves out of the pool the patches that were filled up."""
        if valid is None:
            return super().forward_head(x, pre_logits)  # type: ignore[misc]
        prefix, found = x.shape[1] - valid.shape[1], []
        for count in valid.sum(1).unique():
            places = (valid.sum(1) == count).nonzero()[:, 0]
            tokens = x[places][:, prefix:][valid[places]].unflatten(0, (len(places), -1))
            whole = torch.cat([x[places][:, :prefix], tokens], dim=1)
            found.append((places, super().forward_head(whole, pre_logits)))  # type: ignore[misc]
        return in_order(found)

    def forward_intermediates(self, x: Any, indices: Any = None, norm: bool = False, stop_early: bool = False,
                              output_fmt: str = "NCHW", intermediates_only: bool = False, *args: Any,
                              **options: Any) -> Any:  # fmt: skip
        """As the network's; levels of patches are tokens (B, N, C), "NLC"."""
        how = (indices, norm, stop_early, output_fmt, intermediates_only, *args)
        if not is_patches(x):
            return super().forward_intermediates(x, *how, **options)  # type: ignore[misc]
        if output_fmt != "NLC":
            raise UsageError(f"levels of patches are tokens: output_fmt is 'NLC', not '{output_fmt}'")
        x, prefix = Patches.of(x), getattr(self, "num_prefix_tokens", 0)
        finals: list[tuple[Tensor, Tensor]] = []
        levels: list[list[tuple[Tensor, Any]]] = []
        for places, images in x.images(self.in_chans):
            result = super().forward_intermediates(images, *how, **options)  # type: ignore[misc]
            if not intermediates_only:
                finals.append((places, laid_back(x, places, self.off_grid(result[0]), prefix)))
                result = result[1]
            levels = levels or [[] for _ in result]
            for level, tokens in zip(levels, result, strict=True):
                several = isinstance(tokens, tuple)  # tokens of patches, and those before them
                laid = laid_back(x, places, tokens[0] if several else tokens, 0)
                level.append((places, (laid, tokens[1]) if several else laid))
        joined = [in_order(level) for level in levels]
        return joined if intermediates_only else (in_order(finals), joined)

    def forward(self, x: Any) -> Any:
        if not is_patches(x):
            return super().forward(x)  # type: ignore[misc]
        return in_order([(places, super(ShapeByShape, self).forward(images))  # type: ignore[misc]
                         for places, images in Patches.of(x).images(self.in_chans)])  # fmt: skip


def in_order(found: list[tuple[Tensor, Any]]) -> Any:
    """Answers, tensors or tuples of them, of images at the places (b,) of a batch, as one.

    Of larger images there may be more tokens (b, n, C) than of others, which zeros fill up.
    """
    back = torch.cat([places for places, _ in found]).argsort()
    answers = [each for _, each in found]
    if isinstance(answers[0], Tensor):
        return as_one(answers)[back]
    return tuple(as_one(parts)[back] for parts in zip(*answers, strict=True))


def as_one(answers: Sequence[Tensor]) -> Tensor:
    """(b, C) each, or (b, n, C) with any n -> one of all."""
    if answers[0].ndim == 3:
        longest = max(each.shape[1] for each in answers)
        answers = [F.pad(each, [0, 0, 0, longest - each.shape[1]]) for each in answers]
    return torch.cat([*answers])


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
