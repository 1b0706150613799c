"""Embeddings by the map of a network, and positions, as clients call, hook and patch them."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

from torch import Tensor, nn

from imgzoo_archs_transformer import vision_transformer_hybrid, vitamin
from imgzoo_timm.layers._base import adapter
from imgzoo_timm.layers._patch_embed import Format, HybridEmbed, PatchEmbed


class EmbedOfNetwork(HybridEmbed):
    """Of a finished network, which tells its sizes."""

    def describe(self: Any, model: Any) -> None:
        """Take what clients read from the network that this is the patch embedding of."""
        if not hasattr(self, "proj"):
            self.proj = nn.Identity()
        kernel = self.proj if isinstance(self.proj, nn.Conv2d) else None
        self.img_size, self.in_chans, self.grid_size = model.img_size, model.in_chans, model.grid
        self.patch_size = (1, 1) if kernel is None else kernel.kernel_size
        self.feature_dim = model.embed_dim if kernel is None else kernel.in_channels
        step = model.patch_size[0] // self.patch_size[0]
        whole = getattr(model, "map_whole", False)
        self.feature_size = tuple(side // step if whole else -(side // -step) for side in model.img_size)
        self.feature_ratio = (step, step)
        self.dynamic_img_pad, self.strict_img_size = model.dynamic_img_pad, not model.dynamic_img_size
        self.num_patches = self.grid_size[0] * self.grid_size[1]


@adapter
class BackboneEmbed(EmbedOfNetwork, vision_transformer_hybrid.HybridEmbed):
    def seen(self, backbone: Any, x: Tensor) -> Tensor:
        return backbone.forward_features(x)


@adapter
class StagesEmbed(EmbedOfNetwork, vitamin.ConvEmbed):
    pass


def lay_out(embed: Any, dynamic: bool) -> None:
    """Let an embedding of patches give a map, channels last, where a network takes images of any size."""
    if isinstance(embed, (PatchEmbed, HybridEmbed)):
        embed.flatten = not dynamic
        embed.output_fmt = Format.NHWC if dynamic else Format.NCHW


class Resampling:
    """In front of a network whose position table follows the image: by the function of the network's module that a
    client has put another in the place of, if one has."""

    resampler: ClassVar[str] = "resample_abs_pos_embed"

    def put_in(self) -> Any:
        """The function that a client has put in, None where there is none."""
        modules = (sys.modules.get(cls.__module__) for cls in type(self).__mro__
                   if cls.__module__.startswith(f"{__package__}."))  # fmt: skip
        return next((vars(each)[self.resampler] for each in modules if each and self.resampler in vars(each)), None)

    def resized_table(self: Any, table: Tensor, grid: tuple[int, int]) -> Tensor:
        own = self.put_in()
        if own is None:
            return super().resized_table(table, grid)  # type: ignore[misc]
        prefix = 0 if self.no_embed_class else self.num_prefix_tokens
        return own(table, new_size=grid, old_size=self.grid, num_prefix_tokens=prefix)


class MapResampling(Resampling):
    """Of a table that is a map."""

    resampler = "resample_abs_pos_embed_nhwc"

    def resized_table(self: Any, table: Tensor, grid: tuple[int, int]) -> Tensor:
        own = self.put_in()
        return super(Resampling, self).resized_table(table, grid) if own is None else own(table, grid)  # type: ignore[misc]


class RotaryTokens(Resampling):
    """In front of a network whose tokens go with angles of rotation."""

    @property
    def rope_mixed(self: Any) -> bool:
        """Whether each block has angles of its own."""
        return any(block.depth is not None for block in self.blocks)

    def after_construction(self: Any) -> None:
        super().after_construction()  # type: ignore[misc]
        lay_out(self.patch_embed, self.dynamic_img_size)

    def _pos_embed(self: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Patches (B, N, C), or (B, H, W, C) -> tokens with prefix and position, and the angles of the patches."""
        grid = self.grid
        if self.dynamic_img_size:
            grid, x = (x.shape[1], x.shape[2]), x.flatten(1, 2)
        return self.add_position(x, grid)

    def embed(self: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x, turns = self._pos_embed(self.patch_embed(self.sized_input(x)))
        return self.norm_pre(x), turns
