"""Base of families that read a grid of patch tokens and one class token with a linear classifier, as ViT does."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, TokenModel
from imgzoo_layers.position import resize_grid
from imgzoo_layers.util import pair

POOLS = ("", "token", "avg", "max", "avgmax")


class ClassTokenModel(TokenModel):
    """A family registers its own parameters, writes `embed` and `forward_features`, and ends with `_add_head`."""

    no_decay = ("pos_embed", "cls_token")
    position: ClassVar[str | None] = "pos_embed"
    """The parameter (1, N, C) or (1, 1 + N, C) that is resized with the grid."""

    def __init__(self, num_classes: int, in_chans: int, img_size, patch_size: int, dim: int, depth: int,
                 global_pool: str):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_size, self.patch_size = pair(img_size), pair(patch_size)
        self.grid = self.grid_of(*self.img_size)
        self.num_prefix_tokens = 1
        self.num_features = self.head_hidden_size = dim
        self.feature_info = FeatureInfo(Feature(dim, patch_size, f"blocks.{i}") for i in range(depth))
        self._set_pool(global_pool)

    def _add_head(self, drop_rate: float, fc_norm: nn.Module | None = None) -> None:
        self.fc_norm = fc_norm if fc_norm is not None else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        return height // self.patch_size[0], width // self.patch_size[1]

    def check_size(self, x: Tensor) -> None:
        if x.shape[-2] != self.img_size[0] or x.shape[-1] != self.img_size[1]:
            raise ValueError("the image has another size than the model: use set_input_size or img_size")

    def pool(self, x: Tensor) -> Tensor:
        if self.global_pool == "":
            return x
        if self.global_pool == "token":
            return x[:, 0]
        if self.global_pool == "avg":
            return x[:, 1:].mean(1)
        if self.global_pool == "max":
            return x[:, 1:].amax(1)
        return 0.5 * (x[:, 1:].mean(1) + x[:, 1:].amax(1))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.fc_norm(self.pool(x)))
        return x if pre_logits else self.head(x)

    @torch.jit.ignore
    def _set_pool(self, global_pool: str) -> None:
        if global_pool not in POOLS:
            raise ValueError(f"global_pool is one of {', '.join(POOLS[1:])} or '', not '{global_pool}'")
        self.global_pool = global_pool

    @torch.jit.ignore
    def set_input_size(self, img_size=None) -> None:
        """Fit the position table to another image size."""
        old, self.img_size = self.grid, self.img_size if img_size is None else pair(img_size)
        self.grid = self.grid_of(*self.img_size)
        if self.position:
            table = getattr(self, self.position).detach()
            setattr(self, self.position, nn.Parameter(self._resized(table, old)))

    def _resized(self, table: Tensor, old: tuple[int, int]) -> Tensor:
        return resize_grid(table, self.grid, old, table.shape[1] - old[0] * old[1])

    @torch.jit.ignore
    def fit_state(self, state: dict[str, Tensor]) -> list[str]:
        """Resize the position table of a checkpoint for square images to this model's grid."""
        table = state.get(self.position) if self.position else None
        if table is None or table.shape[1] == getattr(self, self.position).shape[1]:  # type: ignore[arg-type]
            return []
        side = int(table.shape[1] ** 0.5)  # a class token's row beside side^2 others does not reach the next square
        state[self.position] = self._resized(table, (side, side))  # type: ignore[index]
        return [f"{self.position}: grid {side}x{side} resized to {self.grid[0]}x{self.grid[1]}"]
