"""Networks that keep one sequence of tokens: prefix tokens, pooling, grids and their sizes."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import CapabilityError, UsageError
from imgzoo.features import Feature, FeatureInfo, to_map

from .classifier import Distilled, Parts
from .image import ImageModel
from .tables import Size, check_divides, check_size, pair


class TokenModel(ImageModel):
    """Base of networks that keep one sequence of tokens (B, N, C): prefix tokens first, then the grid row by row.

    A family calls the constructor with sizes, registers its parameters, ends with `add_head`, and writes `embed` (image
    to tokens) and `forward_features`. `tables` names its position table.
    """

    parts: ClassVar[Parts] = Parts(
        stem=("embed",), stages=("blocks",), norm=("norm",), pool="", head="head", tail=("attn_pool", "fc_norm")
    )
    layer_groups: ClassVar[dict[str, Any]] = {
        "stem": r"^cls_token|^reg_token|^pos_embed|^patch_embed|^norm_pre",
        "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
    }
    no_decay: ClassVar[tuple[str, ...]] = ("pos_embed", "cls_token")
    pools: ClassVar[tuple[str, ...]] = ("token", "avg", "max", "avgmax")
    """Words of `global_pool` beside "", which keeps all tokens; any other names what `make_attn_pool` makes."""
    token_joins_late: ClassVar[bool] = False
    """Whether the class token joins behind the last level, so that levels have no tokens before the patches."""
    isotropic: ClassVar[bool] = True
    sees_rest: bool = False
    """Whether the embedding takes images that whole patches do not fill, and sees all of them."""
    formats = ("NCHW", "NLC")
    layout = "plain"

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, img_size: int | Size | None = None,
                 patch_size: int | Size = 16, dim: int = 0, depth: int = 0, global_pool: str = "",
                 class_token: bool = True, prefix: int | None = None, dynamic: bool = False, pad: bool = False,
                 pool_include_prefix: bool = False):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.has_class_token = class_token and img_size is not None
        self.num_prefix_tokens = int(self.has_class_token) if prefix is None else prefix
        self.dynamic_img_size, self.dynamic_img_pad = dynamic, pad
        self.sees_rest = self.sees_rest  # scripts read what the instance has
        self.pool_from = (
            0 if pool_include_prefix else self.num_prefix_tokens
        )  # the first token that mean and maximum see
        self.patch_size = pair(patch_size, "patch_size")
        self.grid = (0, 0)
        self.attn_pool: nn.Module | None = None
        self.global_pool = ""
        if img_size is not None:
            self.img_size = pair(img_size, "img_size")
            self.grid = self.checked_grid()
            self.num_features = self.head_hidden_size = self.embed_dim = dim
            self.feature_info = FeatureInfo(Feature(dim, self.patch_size[0], f"blocks.{i}") for i in range(depth))
            self._check_pool(global_pool)
            self.global_pool = global_pool

    def add_head(self, drop_rate: float, fc_norm: nn.Module | None = None) -> None:
        """Register what stands behind the final norm: attention pool, norm of what is pooled, dropout, classifier."""
        self.attn_pool = self.make_attn_pool(self.global_pool)
        self.fc_norm = fc_norm if fc_norm is not None else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()

    # forward path

    def embed(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> tokens (B, N, C) with prefix and position."""
        raise NotImplementedError

    def prefix(self, batch: int) -> list[Tensor]:
        """The tokens before the patches that `cls_token` and `reg_token` hold, (B, n, C) each."""
        tokens: list[Tensor] = []
        if self.cls_token is not None:
            tokens.append(self.cls_token.expand(batch, -1, -1))
        if self.reg_token is not None:
            tokens.append(self.reg_token.expand(batch, -1, -1))
        return tokens

    def pool(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) -> (B, C); all of them where `global_pool` is ""."""
        if self.global_pool == "":
            return x
        if self.global_pool == "token":
            return x[:, 0]
        if self.global_pool == "prr":
            return x if self.attn_pool is None else self.attn_pool(x)
        patches = x[:, self.pool_from :]
        if self.attn_pool is not None:
            return self.attn_pool(patches)
        if self.global_pool == "avg":
            return patches.mean(1)
        if self.global_pool == "max":
            return patches.amax(1)
        return 0.5 * (patches.mean(1) + patches.amax(1))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.fc_norm(self.pool(x)))
        return x if pre_logits else self.head(x)

    # pooling

    def make_attn_pool(self, kind: str) -> nn.Module | None:
        """The module that pools by attention, for words other than token, avg, max and avgmax."""
        return None

    def _check_pool(self, global_pool: str) -> None:
        if global_pool and global_pool not in self.pools:
            raise UsageError(f"global_pool is {', '.join(map(repr, self.pools))} or '', not {global_pool!r}")
        if global_pool == "token" and not self.has_class_token:
            raise UsageError("there is no class token to pool by (class_token=False): use global_pool='avg'")

    def _set_pool(self, global_pool: str) -> None:
        self._check_pool(global_pool)
        if global_pool != self.global_pool:
            like = next(p for p in self.parameters() if p.is_floating_point())
            made = self.make_attn_pool(global_pool)
            self.attn_pool = made.to(like.device, like.dtype).train(self.training) if made is not None else None
        self.global_pool = global_pool

    def pool_kind(self) -> str:
        return self.global_pool

    def _behead(self) -> None:
        if "cls_token" in self.parts.tail:
            self.has_class_token, self.num_prefix_tokens, self.pool_from = False, 0, 0
        super()._behead()

    # sizes

    def grid_of(self, height: int, width: int) -> Size:
        """Patches down and across for an image of this size."""
        if self.dynamic_img_pad or self.sees_rest:
            return -(height // -self.patch_size[0]), -(width // -self.patch_size[1])
        return height // self.patch_size[0], width // self.patch_size[1]

    def checked_grid(self) -> Size:
        grid = self.grid_of(*self.img_size)
        if min(grid) < 1:
            raise UsageError(f"img_size {self.img_size} is smaller than a patch, {self.patch_size}")
        rest = any(side % patch for side, patch in zip(self.img_size, self.patch_size))
        if rest and not self.sees_rest and self.dynamic_img_size and not self.dynamic_img_pad:
            patches = f"img_size {self.img_size} does not divide into patches of {self.patch_size}"
            raise UsageError(f"{patches}; {_whole(self.img_size, self.patch_size)}")
        return grid

    def sized_input(self, x: Tensor) -> Tensor:
        """The image after a check of its size; with `dynamic_img_pad` filled up to whole patches below and right.

        Of an image of the one size that the network is made for, what lies beyond whole patches is not seen.
        """
        if not self.dynamic_img_size:
            x = check_size(x, self.img_size)
        if self.sees_rest:
            return x
        if self.dynamic_img_pad:
            down, right = -x.shape[-2] % self.patch_size[0], -x.shape[-1] % self.patch_size[1]
            return F.pad(x, [0, right, 0, down])
        return check_divides(x, self.patch_size) if self.dynamic_img_size else x

    def fit_size(self, img_size: Size, patch_size: int | Size | None = None, **options: Any) -> None:
        """Take another image size, and another patch size where the patch kernels are among the tables."""
        if patch_size is not None:
            if not any(kind.size == "patch_size" for kind in self.tables.values() if not kind.computed):
                raise CapabilityError(f"{type(self).__name__} has no patch_size to set")
            self.patch_size = pair(patch_size, "patch_size")
            levels = (level._replace(reduction=self.patch_size[0]) for level in self.feature_info.levels)
            self.feature_info = FeatureInfo(levels)
        self.img_size = img_size
        self.grid = self.checked_grid()
        super().fit_size(img_size, **options)

    # levels

    def _entering(self, x: Any) -> Any:
        return x  # the first step, `embed`, looks at its size

    def _format(self, level: Tensor, output_fmt: str, index: int) -> Tensor:
        return level  # tokens, which need the grid of the image

    def forward_intermediates(  # type: ignore[override]
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        return_prefix_tokens: bool = False,
    ) -> Any:
        """As `ImageModel.forward_intermediates`; "NLC" gives tokens, `return_prefix_tokens` pairs (level, prefix) where
        the network has such tokens."""
        grid = self.grid_of(x.shape[-2], x.shape[-1])
        result = super().forward_intermediates(x, indices, norm, stop_early, output_fmt, intermediates_only)
        levels = result if intermediates_only else result[1]
        prefix = 0 if self.token_joins_late else self.num_prefix_tokens
        for i, level in enumerate(levels):
            body = to_map(level[:, prefix:], grid) if output_fmt == "NCHW" else level[:, prefix:]
            levels[i] = (body, level[:, :prefix]) if return_prefix_tokens and prefix else body
        return result


class DistilledTokens(Distilled):
    """Mixed in before a token model whose second token learns from a teacher: `head_dist` classifies it."""

    def add_second_head(self, dim: int, num_classes: int) -> None:
        self.head_dist = nn.Linear(dim, num_classes) if num_classes else nn.Identity()

    def _check_pool(self, global_pool: str) -> None:
        if global_pool not in ("", "token"):
            raise UsageError("the distilled head reads the class and distillation tokens: global_pool is 'token'")

    def forward_head(self, x: Tensor, pre_logits: bool = False):
        first, second = x[:, 0], x[:, 1]
        if pre_logits:
            return (first + second) / 2
        first, second = self.head(self.head_drop(first)), self.head_dist(self.head_drop(second))  # type: ignore[attr-defined]
        return self.join_heads(first, second)


def _whole(size: Size, patch: Size) -> str:
    """What the nearest sizes do that patches divide, the smaller and the larger."""
    sides = list(zip(size, patch))
    smaller, larger = (tuple(max(p, s // p * p) for s, p in sides), tuple(-(s // -p) * p for s, p in sides))
    return f"{smaller} does" if smaller == larger else f"{smaller} and {larger} do"


torch.fx.wrap("check_size")
torch.fx.wrap("check_divides")
