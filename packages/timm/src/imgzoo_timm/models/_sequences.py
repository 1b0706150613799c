"""The embedding of NaFlexVit in the field's arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from imgzoo_archs_transformer import naflexvit
from imgzoo_layers.init import trunc_normal_
from imgzoo_timm.layers._base import adapter, placed
from imgzoo_timm.layers._helpers import to_2tuple
from imgzoo_timm.layers._norm_names import get_norm_layer

from ._map_attentions import refuse_unless


@adapter
@placed
class NaFlexEmbeds(naflexvit.NaFlexEmbeds):
    def __init__(self, patch_size: int | tuple[int, int] = 16, in_chans: int = 3, embed_dim: int = 768,
                 proj_type: str | None = None, proj_bias: bool = True, class_token: bool = True, reg_tokens: int = 0,
                 dynamic_img_pad: bool = False, default_img_size: int | tuple[int, int] | None = None,
                 pos_embed: str = "learned", pos_embed_grid_size: tuple[int, int] | None = (14, 14),
                 pos_embed_interp_mode: str = "bicubic", pos_embed_ar_preserving: bool = False,
                 pos_embed_antialias: bool = True, pos_embed_align_corners: bool = False,
                 pos_embed_use_grid_sample: bool = False, input_norm_layer: Any = None, proj_norm_layer: Any = None,
                 norm_layer: Any = None, pos_drop_rate: float = 0.0, enable_patch_interpolator: bool = False,
                 channels_last: bool = True):  # fmt: skip
        patch = to_2tuple(patch_size)
        refuse_unless(channels_last and not dynamic_img_pad, "patches have channels last, and images are not padded",
                      channels_last=channels_last, dynamic_img_pad=dynamic_img_pad)  # fmt: skip
        refuse_unless(proj_type in (None, "conv", "linear"), "proj_type is 'conv' or 'linear'", proj_type=proj_type)
        behind = norm_layer if proj_norm_layer is True else proj_norm_layer
        refuse_unless(not (input_norm_layer or pos_drop_rate), "nothing norms patches before their layer, or drops",
                      input_norm_layer=input_norm_layer, pos_drop_rate=pos_drop_rate)  # fmt: skip
        refuse_unless(pos_embed in ("learned", "factorized", "none", ""),
                      "pos_embed is 'learned', 'factorized' or 'none'", pos_embed=pos_embed)  # fmt: skip
        tables = pos_embed not in ("none", "")
        if pos_embed_grid_size is None and not tables:
            pos_embed_grid_size = 0, 0
        elif pos_embed_grid_size is None:
            size = to_2tuple(default_img_size)
            refuse_unless(default_img_size is not None, "pos_embed_grid_size or default_img_size is given",
                          pos_embed_grid_size=None)  # fmt: skip
            pos_embed_grid_size = size[0] // patch[0], size[1] // patch[1]
        super().__init__(patch, in_chans, embed_dim, class_token, reg_tokens, pos_embed_grid_size,
                         pos_embed == "factorized", pos_embed_interp_mode, pos_embed_antialias,
                         pos_embed_align_corners, pos_embed_ar_preserving, enable_patch_interpolator,
                         pos_embed_use_grid_sample, get_norm_layer(behind), proj_bias, proj_type != "linear",
                         tables)  # fmt: skip
        for name, parameter in self.named_parameters(recurse=False):
            if name.startswith("pos_embed"):
                trunc_normal_(parameter, std=0.02)
            else:
                nn.init.normal_(parameter, std=1e-6)

    def forward(self, x: Tensor, patch_coord: Tensor | None = None,
                patch_valid: Tensor | None = None) -> tuple[Tensor, tuple[int, int] | None]:  # fmt: skip
        """Of patches with coordinates alone all are any."""
        if patch_coord is not None and patch_valid is None:
            patch_valid = torch.ones_like(patch_coord[..., 0], dtype=torch.bool)
        return super().forward(x, patch_coord, patch_valid)

    @property
    def pos_embed_use_grid_sample(self) -> bool:
        return self.point_sample

    @pos_embed_use_grid_sample.setter
    def pos_embed_use_grid_sample(self, value: bool) -> None:
        self.point_sample = value

    def __getattr__(self, name: str) -> Any:
        read = TOLD.get(name)
        return read(self) if read else super().__getattr__(name)


def positions_of(part: Any) -> str:
    if not part.abs_pos:
        return "none"
    return "factorized" if part.factorized else "learned"


TOLD = {
    "patch_size": lambda part: part.patch,
    "embed_dim": lambda part: part.proj.weight.shape[0],
    "in_chans": lambda part: part.proj.weight[0].numel() // (part.patch[0] * part.patch[1]),
    "has_class_token": lambda part: part.cls_token is not None,
    "num_reg_tokens": lambda part: 0 if part.reg_token is None else part.reg_token.shape[1],
    "num_prefix_tokens": lambda part: part.has_class_token + part.num_reg_tokens,
    "pos_embed_type": lambda part: positions_of(part),
    "pos_embed_interp_mode": lambda part: part.stretching[0],
    "pos_embed_antialias": lambda part: part.stretching[1],
    "pos_embed_align_corners": lambda part: part.stretching[2],
    "pos_embed_ar_preserving": lambda part: part.stretching[3],
    "pos_embed_grid_size": lambda part: (part.pos_embed_y.shape[1], part.pos_embed_x.shape[1]) if part.factorized
    else tuple(part.pos_embed.shape[1:3]) if part.abs_pos else None,
    "enable_patch_interpolator": lambda part: part.any_size,
    "is_linear": lambda part: part.proj.weight.ndim == 2,
}  # fmt: skip
"""What clients read of it, by name."""
