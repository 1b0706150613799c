"""What the vision towers of language models share: an encoder that ends in tokens for the language model, or as the
same network under `encoder.` with a classifier behind it.

Images of any size in whole patches are taken. State along the path: tokens, the table that turns them, the grid.
"""

from typing import Any, ClassVar

import torch.fx
from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.features import to_map
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.drop import drop_path_of
from imgzoo_layers.norm import Norm
from imgzoo_layers.tables import Size

State = tuple[Tensor, Tensor, Size]


class Block(nn.Module):
    """Attention turned by place, then mlp, each normalized first: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, norm: Norm, drop_path: float):
        super().__init__()
        self.norm1 = norm(dim)
        self.attn = attn
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = norm(dim)
        self.mlp = mlp
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x), table))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class Blocks(nn.Sequential):
    def forward(self, x: Tensor, table: Tensor) -> Tensor:  # type: ignore[override]
        for block in self:
            x = block(x, table)
        return x


class Tower(ImageModel):
    """Base of both: pooling by the mean of tokens ("avg") or not at all (""), levels and their maps."""

    isotropic = True
    channels_last = True
    formats = ("NCHW", "NLC")
    layout = "plain"
    num_prefix_tokens = 0

    def forward_intermediates(self, *args: Any, return_prefix_tokens: bool = False, **options: Any) -> Any:
        """As everywhere; `return_prefix_tokens`, which networks of tokens take, adds nothing: there are none."""
        return super().forward_intermediates(*args, **options)

    def _levels(self, prefix: str, dim: int, depth: int) -> None:
        self.feature_info = FeatureInfo(Feature(dim, self.patch_size[0], f"{prefix}blocks.{i}") for i in range(depth))

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        if path == "embed":
            return step(x), {}
        tokens, table, grid = x
        tokens = step(tokens, table)
        return (tokens, table, grid), {path: (tokens, grid)}

    def pool_kind(self) -> str:
        return self.global_pool

    def _set_pool(self, global_pool: str) -> None:
        if global_pool not in ("", "avg"):
            raise UsageError(f"global_pool is 'avg' or '', not '{global_pool}'")
        self.global_pool = global_pool

    def pooled(self, x: Tensor) -> Tensor:
        """(B, N, C) or (B, h, w, C) -> (B, C), or (B, N, C) where `global_pool` is ""."""
        x = x.flatten(1, -2)
        return x.mean(1) if self.global_pool == "avg" else x

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """As everywhere; the first classifier of an encoder reads the mean of its tokens unless told otherwise."""
        grows = global_pool is None and num_classes and not self.num_classes
        super().reset_classifier(num_classes, "avg" if grows else global_pool)


class Encoder(Tower):
    """A subclass sets `patch_size` and `embed_dim`, registers `blocks` and what merges, ends with `add_head`.

    Without a `global_pool` tokens are pooled where there is a classifier.
    """

    merging: ClassVar[str] = "merge"
    """The field's word for `global_pool=""`: tokens as they are merged."""
    parts = Parts(stem=("embed",), stages=("blocks",), pool="", head="head", tail=("merger",))

    def add_head(self, out: int, global_pool: str | None, drop_rate: float = 0.0) -> None:
        self.num_features, self.head_hidden_size = self.embed_dim, out
        self._levels("", self.embed_dim, len(self.blocks))
        self._set_pool(global_pool if global_pool is not None else "avg" if self.num_classes else "")
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(out, self.num_classes) if self.num_classes else nn.Identity()

    def _set_pool(self, global_pool: str) -> None:
        super()._set_pool("" if global_pool == self.merging else global_pool)

    def grid_of(self, x: Tensor) -> Size:
        """Patches down and across of an image."""
        return x.shape[-2] // self.patch_size[0], x.shape[-1] // self.patch_size[1]

    def embed(self, x: Tensor) -> State:
        raise NotImplementedError

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> the tokens on their grid, (B, h, w, C)."""
        tokens, table, grid = self.embed(x)
        return self.finished(self.blocks(tokens, table)).unflatten(1, grid)

    def finished(self, tokens: Tensor) -> Tensor:
        """The final norm, where there is one."""
        return tokens

    def merged(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> what the language model reads, (B, M, out)."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.pooled(self.merged(x)))
        return x if pre_logits else self.head(x)

    def _final_norm(self, x: Any) -> Tensor:
        return self.finished(x[0]).unflatten(1, x[-1])

    def _collect(self, x: Any, norm: bool) -> Tensor:
        return to_map(self.finished(x[0]) if norm else x[0], x[-1])


class Classifier(Tower):
    """An encoder under `encoder.`; the mean of its tokens, merged or not, is normalized and classified."""

    parts = Parts(stem=("embed",), stages=("encoder",), pool="", head="head", tail=("encoder.merger", "norm"))

    def __init__(self, encoder: Encoder, norm: nn.Module, merges: bool, num_classes: int, global_pool: str,
                 drop_rate: float):  # fmt: skip
        super().__init__(num_classes, encoder.in_chans)
        self.encoder, self.merges = encoder, merges
        self.patch_size, self.embed_dim = encoder.patch_size, encoder.embed_dim
        self.num_features = self.head_hidden_size = encoder.head_hidden_size
        self._levels("encoder.", self.embed_dim, len(encoder.blocks))
        self._set_pool(global_pool)
        self.norm = norm
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def embed(self, x: Tensor) -> State:
        return self.encoder.embed(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h, w, C), or merged (B, M, out)."""
        grid = self.encoder.grid_of(x)
        x = self.encoder(x)
        return x if self.merges else x.unflatten(1, grid)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.norm(self.pooled(x)))
        return x if pre_logits else self.head(x)

    def _behead(self) -> None:
        self.num_features = self.feature_info.levels[-1].channels  # what merges tokens goes with the head
        self.merges = False
        self.encoder._behead()
        super()._behead()

    def _stages(self) -> list[tuple[str, Any]]:
        return [(f"encoder.blocks.{key}", block) for key, block in self.encoder.blocks.named_children()]

    def _final_norm(self, x: Any) -> Tensor:
        x = self.encoder._final_norm(x)
        return self.encoder.merged(x) if self.merges else x

    def _collect(self, x: Any, norm: bool) -> Tensor:
        return self.encoder._collect(x, norm)


def grouped(x: Tensor, side: int) -> Tensor:
    """Squares of tokens side by side, place by place: (B, h, w, C) -> (B, h/s * w/s, s * s * C)."""
    x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))
    return x.transpose(2, 3).flatten(3).flatten(1, 2)


def whole(x: Tensor, step: Size) -> Tensor:
    """The image, if its sides are multiples of `step`."""
    return checked_whole(x, step)


def checked_whole(x: Tensor, step: Size) -> Tensor:
    if x.shape[-2] % step[0] or x.shape[-1] % step[1]:
        size = f"{x.shape[-2]}x{x.shape[-1]}"
        raise UsageError(f"the image, {size}, does not divide into {step[0]}x{step[1]}: resize it to multiples of that")
    return x


torch.fx.wrap("checked_whole")  # tracers see one call
