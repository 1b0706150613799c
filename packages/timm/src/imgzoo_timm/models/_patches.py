"""Networks that take patches, with coordinates and what is any of them by themselves, and levels by name."""

from __future__ import annotations

from typing import Any

import torch.fx

from imgzoo.errors import OptionError
from imgzoo.model.patches import Patches, ShapeByShape, is_patches


class PatchesGiven:
    """In front of networks that take patches: coordinates, and which patches are any, may come by themselves, as the
    field passes them; all patches are where nothing says so."""

    def forward(self: Any, x: Any, patch_coord: Any = None, patch_valid: Any = None, attn_mask: Any = None) -> Any:
        return super().forward(joined_patches(x, patch_coord, patch_valid, attn_mask))  # type: ignore[misc]


class PatchesByName(PatchesGiven):
    """In front of networks made for patches: the same of their parts."""

    def forward_features(self: Any, patches: Any, patch_coord: Any = None, patch_valid: Any = None,
                         attn_mask: Any = None) -> Any:  # fmt: skip
        """Tokens; of patches with coordinates by themselves a dictionary of tokens and which patches are any."""
        features = super().forward_features(joined_patches(patches, patch_coord, patch_valid, attn_mask))  # type: ignore[misc]
        return features if patch_coord is None else {"patches": features, "patch_valid": patch_valid}

    def forward_head(self: Any, patches: Any, pre_logits: bool = False, patch_valid: Any = None,
                     valid: Any = None) -> Any:  # fmt: skip
        return super().forward_head(patches, pre_logits, valid if patch_valid is None else patch_valid)  # type: ignore[misc]

    def forward_intermediates(self: Any, x: Any, *args: Any, patch_coord: Any = None, patch_valid: Any = None,
                              attn_mask: Any = None, **options: Any) -> Any:  # fmt: skip
        x = joined_patches(x, patch_coord, patch_valid, attn_mask)
        return super().forward_intermediates(x, *args, **options)  # type: ignore[misc]


class PatchesOfShapes(PatchesByName):
    """In front of networks of images that take patches, too."""

    def forward_intermediates(self: Any, x: Any, *args: Any, patch_coord: Any = None, patch_valid: Any = None,
                              attn_mask: Any = None, output_dict: bool = False, **options: Any) -> Any:  # fmt: skip
        x = joined_patches(x, patch_coord, patch_valid, attn_mask)
        result = super().forward_intermediates(x, *args, **options)
        return named_levels(x, result) if output_dict else result


class TokensOfTowers:
    """In front of encoders of language models: tokens that nothing merges stand on their grid where no pool is."""

    def pooled(self: Any, x: Any) -> Any:
        return x if self.global_pool == "" and x.ndim == 4 else super().pooled(x)  # type: ignore[misc]


class PatchesOfTowers(PatchesOfShapes, ShapeByShape):
    """In front of towers of language models that take patches anyway; their tokens stand by themselves in the field."""

    takes_patches = True

    def forward_features(self: Any, patches: Any, patch_coord: Any = None, patch_valid: Any = None,
                         attn_mask: Any = None) -> Any:  # fmt: skip
        features = super().forward_features(patches, patch_coord, patch_valid, attn_mask)
        return features["patches"] if isinstance(features, dict) else features


def joined_patches(x: Any, coordinates: Any, valid: Any, mask: Any) -> Any:
    """Patches and what stands beside them as one; an image, or a record of them, as it is."""
    if isinstance(mask, torch.fx.Proxy):  # a tracer, which gives something for every argument, looks at an image
        return x
    if mask is not None:
        raise OptionError("attention sees all valid patches here: leave attn_mask out, and say patch_valid")
    if coordinates is None:
        return x
    return Patches.of(
        (x, coordinates, torch.ones_like(coordinates[..., 0], dtype=torch.bool) if valid is None else valid)
    )


def named_levels(x: Any, result: Any) -> dict[str, Any]:
    """What `forward_intermediates` of an input gives, by the field's names."""
    features, levels = result if isinstance(result, tuple) else (None, result)
    found: dict[str, Any] = {"image_intermediates": levels}
    if levels and isinstance(levels[0], tuple):
        found["image_intermediates"], found["image_intermediates_prefix"] = map(list, zip(*levels))
    if is_patches(x):
        found["patch_valid"] = Patches.of(x).valid
    return found if features is None else {**found, "image_features": features}
