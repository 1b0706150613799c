"""Swin Transformer: attention in windows that shift from block to block (arXiv:2103.14030); S3 (arXiv:2111.14725)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo.model.tables import pair as checked_pair
from imgzoo.options import is_of
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Norms
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.padding import pad_to_multiple
from imgzoo_layers.shifted_windows import ShiftedWindows
from imgzoo_layers.stage import Stage
from imgzoo_layers.tables import PatchKernel, Size
from imgzoo_layers.util import pair
from imgzoo_layers.window import WindowAttention


class PatchEmbed(nn.Module):
    """Cut the image into patches and project each: (B, 3, H, W) -> (B, H/4, W/4, C)."""

    def __init__(self, patch_size: int | Size, in_chans: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, patch_size, patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Four neighbors become one of twice the width: (B, H, W, C) -> (B, H/2, W/2, 2C)."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, dim_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x, (2, 2))
        batch, height, width, dim = x.shape
        x = x.view(batch, height // 2, 2, width // 2, 2, dim).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))


class Block(ShiftedWindows):
    """Attention in windows, every other block shifted by half a window, then mlp: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, heads: int, head_dim: int | None, resolution: Size, window: Size, shifted: bool,
                 always_partition: bool, dynamic: bool, mlp_ratio: float, qkv_bias: bool, drop: float, attn_drop: float,
                 drop_path: float):  # fmt: skip
        super().__init__(resolution, window, shifted, always_partition, dynamic)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, self.window, head_dim, qkv_bias, attn_drop, drop)
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.drop_path2 = drop_path_of(drop_path)
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attend(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class SwinTransformer(ImageModel):
    parts = Parts(stem=("patch_embed",), stages=("layers",), norm=("norm",))
    exchanged = (Norms("layernorm"),)
    layer_groups = {
        "stem": r"^patch_embed",
        "blocks": [
            (r"^layers\.(\d+)\.downsample", (0,)),
            (r"^layers\.(\d+)\.\w+\.(\d+)", None),
            (r"^norm", (99999,)),
        ],
        "coarse": r"^layers\.(\d+)",
    }
    no_decay = ("*relative_position_bias_table",)
    tables = {"patch_embed.proj.weight": PatchKernel()}
    channels_last = True
    layout = "plain"

    def __init__(self, img_size: int | Size = 224, patch_size: int | Size = 4, embed_dim: int = 96,
                 depths: Sequence[int] = (2, 2, 6, 2), num_heads: Sequence[int] = (3, 6, 12, 24),
                 head_dim: int | None = None, window_size: int | Sequence[int | Size] = 7,
                 always_partition: bool = False, dynamic_img_size: bool = False, mlp_ratio: float = 4.0,
                 qkv_bias: bool = True, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.1):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_size, self.patch_size, self.dynamic_img_size = pair(img_size), pair(patch_size), dynamic_img_size
        self.set_windows(windows_of(window_size, len(depths)))
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        stages, levels = [], []
        make_block = partial(Block, head_dim=head_dim, always_partition=always_partition, dynamic=dynamic_img_size,
                             mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, drop=proj_drop_rate,
                             attn_drop=attn_drop_rate)  # fmt: skip
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            dim, resolution = embed_dim * 2**i, self.resolution(i)
            down = PatchMerging(dim // 2, dim) if i else nn.Identity()
            blocks = [make_block(dim, num_heads[i], resolution=resolution, window=self.windows[i], shifted=j % 2 == 1,
                                 drop_path=drop) for j, drop in enumerate(drops)]  # fmt: skip
            stages.append(Stage(down, *blocks))
            levels.append(Feature(dim, self.patch_size[0] * 2**i, f"layers.{i}"))
        self.layers = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.norm = nn.LayerNorm(dim)
        self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate, channels_last=True)
        self.head_hidden_size = dim * self.head.global_pool.width
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def resolution(self, stage: int) -> Size:
        """Height and width of a stage's map."""
        height, width = (side // patch for side, patch in zip(self.img_size, self.patch_size))
        return -(height // -(2**stage)), -(width // -(2**stage))

    def set_windows(self, windows: list[Size]) -> None:
        """Take windows of this size of the image; at another one they follow the patch grid."""
        self.windows, self.windows_at = windows, (self.resolution(0), windows)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, H/32, W/32, C)
        return self.norm(self.layers(self.patch_embed(self.sized_input(x))))

    def sized(self):
        for i, (_, stage) in enumerate(self._stages()):
            for block in stage.blocks:
                yield block, self.resolution(i)
                yield block.attn, block.window

    def fit_size(self, img_size: Size, window_size: Any = None, window_ratio: int | Sequence[int] | None = None,
                 always_partition: bool | None = None, patch_size: int | Size | None = None,
                 **options: Any) -> None:  # fmt: skip
        """Take another image size, other patches or other windows; `window_ratio` makes windows that fraction of the
        patch grid, a number or one a stage. Without either, windows grow and shrink with the grid."""
        if patch_size is not None:
            self.patch_size = checked_pair(patch_size, "patch_size")
            levels = (level._replace(reduction=self.patch_size[0] * 2**i)
                      for i, level in enumerate(self.feature_info.levels))  # fmt: skip
            self.feature_info = FeatureInfo(levels)
        self.img_size, stages = img_size, [stage for _, stage in self._stages()]
        if window_size is not None:
            self.set_windows(windows_of(window_size, len(stages)))
        elif window_ratio is not None:
            self.set_windows(windows_by(window_ratio, self.resolution(0), len(stages)))
        else:
            (height, width), windows = self.windows_at
            high, wide = self.resolution(0)
            self.windows = [(max(down * high // height, 1), max(across * wide // width, 1)) for down, across in windows]
        for stage, window in zip(stages, self.windows):
            for block in stage.blocks:
                block.wanted = window
                if always_partition is not None:
                    block.always_partition = always_partition
        super().fit_size(img_size, **options)

    def size_options(self, window_size: Any = None, window_ratio: Any = None, **options: Any) -> dict[str, Any]:
        return {"window_size": [list(window) for window in self.windows], **options}


def windows_by(window_ratio: int | Sequence[int], grid: Size, stages: int) -> list[Size]:
    """One window a stage, a fraction of the patch grid: a number, or one a stage; `ValueError` for anything else."""
    several = isinstance(window_ratio, (list, tuple))
    ratios: list[Any] = list(window_ratio) if several else [window_ratio] * stages
    if len(ratios) != stages or not is_of(ratios, list[int]) or min(ratios) < 1:
        raise ValueError(f"window_ratio is a number of at least 1, or one for each stage, not {window_ratio!r}")
    return [(max(grid[0] // ratio, 1), max(grid[1] // ratio, 1)) for ratio in ratios]


def windows_of(window_size: int | Sequence[int | Size], stages: int) -> list[Size]:
    """One window a stage from a number, its sides for all, or a list of either; `ValueError` for anything else."""
    given: list[Any] = list(window_size) if isinstance(window_size, (list, tuple)) else [window_size] * stages
    if len(given) == 2 and all(isinstance(side, int) for side in given):
        given = [(given[0], given[1])] * stages
    pairs: list[Any] = [size if isinstance(size, (list, tuple)) else (size, size) for size in given]
    if len(pairs) != stages or not all(is_of(sides, tuple[int, int]) and min(sides) >= 1 for sides in pairs):
        one = f"a number from 1, two, or one for each of {stages} stages"
        raise ValueError(f"window_size is {one}, not {window_size!r}")
    return [(height, width) for height, width in pairs]
