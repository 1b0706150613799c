"""CoaT: serial stages with relative positions by convolution, then three scales in parallel (arXiv:2104.06399)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import UsageError
from imgzoo.model import FeatureInfo, ImageModel, Parts, Shortened
from imgzoo_layers.attention import head_width
from imgzoo_layers.drop import drop_path_of, dropout_of
from imgzoo_layers.exchange import Biases, Norms
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.position import ConvPosition

Size = tuple[int, int]
Windows = Mapping[int, int]
KERNELS = {3: 2, 5: 3, 7: 3}
"""Kernel sizes of the relative positions and how many of the eight heads use each (section 3.2)."""


def to_map(x: Tensor, size: Size) -> Tensor:
    """Patch tokens (..., N, C) behind the class token -> (B, C, H, W)."""
    return x[:, 1:].transpose(1, 2).unflatten(2, size)


class PatchEmbed(nn.Module):
    """Cut a map into patches behind a class token: (B, C, H, W), (1, 1, D) -> (B, 1 + N, D) and the grid."""

    def __init__(self, dim: int, dim_out: int, patch_size: int):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim_out, patch_size, patch_size)
        self.norm = nn.LayerNorm(dim_out)

    def forward(self, x: Tensor, token: Tensor) -> tuple[Tensor, Size]:
        x = self.proj(x)
        size = (x.shape[2], x.shape[3])
        return torch.cat([token.expand(x.shape[0], -1, -1), self.norm(x.flatten(2).transpose(1, 2))], dim=1), size


class ConvRelPosEnc(nn.Module):
    """Relative position: the query times a depthwise convolution of the values (equation 4)."""

    def __init__(self, dim: int, windows: Windows):
        super().__init__()
        self.heads = sum(windows.values())
        width = dim // self.heads
        self.splits = [heads * width for heads in windows.values()]
        self.conv_list = nn.ModuleList(
            nn.Conv2d(heads * width, heads * width, kernel, padding=kernel // 2, groups=heads * width)
            for kernel, heads in windows.items()
        )

    def forward(self, q: Tensor, v: Tensor, size: Size) -> Tensor:  # (B, heads, 1 + N, c) each -> the same
        image = to_map(v.transpose(1, 2).flatten(2), size)
        parts = torch.split(image, self.splits, dim=1)
        found = torch.cat([conv(parts[i]) for i, conv in enumerate(self.conv_list)], dim=1)
        found = found.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)
        return F.pad(q[:, :, 1:] * found, [0, 0, 1, 0])


class FactorAttention(nn.Module):
    """Attention in linear time, keys and values first (arXiv:1812.01243), plus relative position: (B, 1 + N, C)."""

    def __init__(self, dim: int, crpe: ConvRelPosEnc, proj_drop: float):
        super().__init__()
        self.heads = crpe.heads
        self.scale = head_width(dim, self.heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = dropout_of(proj_drop)
        self.crpe = crpe

    def forward(self, x: Tensor, size: Size) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        context = k.softmax(dim=2).transpose(-1, -2) @ v  # (B, heads, c, c)
        x = self.scale * (q @ context) + self.crpe(q, v, size)
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))


class SerialBlock(nn.Module):
    def __init__(self, dim: int, mlp_ratio: float, cpe: ConvPosition, crpe: ConvRelPosEnc, proj_drop: float,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.cpe = cpe
        self.norm1 = LayerNorm(dim)
        self.factoratt_crpe = FactorAttention(dim, crpe, proj_drop)
        self.drop_path = drop_path_of(drop_path)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        x = self.cpe(x, size)
        x = x + self.drop_path(self.factoratt_crpe(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SerialBlocks(nn.Sequential):
    def forward(self, x: Tensor, size: Size) -> Tensor:  # type: ignore[override]
        for block in self:
            x = block(x, size)
        return x


class ParallelBlock(nn.Module):
    """Three scales attend apart and add each other's results, resized; one mlp serves all (figure 3)."""

    def __init__(self, dim: int, mlp_ratio: float, crpes: Sequence[ConvRelPosEnc], proj_drop: float,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.norm12, self.norm13, self.norm14 = LayerNorm(dim), LayerNorm(dim), LayerNorm(dim)
        self.factoratt_crpe2, self.factoratt_crpe3, self.factoratt_crpe4 = (
            FactorAttention(dim, crpe, proj_drop) for crpe in crpes
        )
        self.drop_path = drop_path_of(drop_path)
        self.norm22, self.norm23, self.norm24 = LayerNorm(dim), LayerNorm(dim), LayerNorm(dim)
        self.mlp2 = self.mlp3 = self.mlp4 = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)

    def forward(
        self, x2: Tensor, x3: Tensor, x4: Tensor, s2: Size, s3: Size, s4: Size
    ) -> tuple[Tensor, Tensor, Tensor]:
        y2 = self.factoratt_crpe2(self.norm12(x2), s2)
        y3 = self.factoratt_crpe3(self.norm13(x3), s3)
        y4 = self.factoratt_crpe4(self.norm14(x4), s4)
        x2 = x2 + self.drop_path(y2 + resize(y3, s3, s2) + resize(y4, s4, s2))
        x3 = x3 + self.drop_path(y3 + resize(y4, s4, s3) + resize(y2, s2, s3))
        x4 = x4 + self.drop_path(y4 + resize(y3, s3, s4) + resize(y2, s2, s4))
        x2 = x2 + self.drop_path(self.mlp2(self.norm22(x2)))
        x3 = x3 + self.drop_path(self.mlp3(self.norm23(x3)))
        x4 = x4 + self.drop_path(self.mlp4(self.norm24(x4)))
        return x2, x3, x4


def resize(x: Tensor, old: Size, new: Size) -> Tensor:
    """Patch tokens of one grid on another; the class token stays: (B, 1 + N, C) -> (B, 1 + M, C)."""
    image = F.interpolate(to_map(x, old), size=new, mode="bilinear", align_corners=False)
    return torch.cat([x[:, :1], image.flatten(2).transpose(1, 2)], dim=1)


class CoaT(ImageModel):
    """The serial part alone (CoaT-Lite). Images of any size pass as they are: all positions are convolutions.

    Args:
        serial_depths: serial blocks of each stage
        crpe_window: kernels of the relative positions, and how many heads have each
        parallel_depth: blocks in which the last three scales exchange
    """

    exchanged = (Norms("layernorm", ("!patch_embed*.norm", "!stem.1")), Biases(("*.qkv",)))
    parts = Parts(stem=(), stages=("serial_blocks1", "serial_blocks2", "serial_blocks3", "serial_blocks4"),
                  norm=("norm4",), pool="", head="head")  # fmt: skip
    shortened = Shortened
    no_decay = ("cls_token*",)
    parallel = False

    def __init__(self, embed_dims: Sequence[int] = (64, 128, 256, 320), serial_depths: Sequence[int] = (2, 2, 2, 2),
                 parallel_depth: int = 0, mlp_ratios: Sequence[float] = (4, 4, 4, 4), num_heads: int = 8,
                 crpe_window: Windows | None = None, num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "token", drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self._set_pool(global_pool)
        windows = crpe_window or KERNELS
        if sum(windows.values()) != num_heads:
            raise UsageError(f"each of num_heads={num_heads} has one kernel, crpe_window counts {dict(windows)}")
        self.num_features = self.head_hidden_size = embed_dims[-1]
        widths = list(enumerate(embed_dims, start=1))
        for i, dim in widths:
            self.register_parameter(f"cls_token{i}", nn.Parameter(torch.empty(1, 1, dim)))
        for i, dim in widths:
            self.add_module(
                f"patch_embed{i}", PatchEmbed(embed_dims[i - 2] if i > 1 else in_chans, dim, 2 if i > 1 else 4)
            )
        cpes = [ConvPosition(dim, prefix=1) for dim in embed_dims]
        crpes = [ConvRelPosEnc(dim, windows) for dim in embed_dims]
        for i, _ in widths:
            self.add_module(f"cpe{i}", cpes[i - 1])
        for i, _ in widths:
            self.add_module(f"crpe{i}", crpes[i - 1])
        for i, dim in widths:
            options = (dim, mlp_ratios[i - 1], cpes[i - 1], crpes[i - 1], proj_drop_rate, drop_path_rate)
            blocks = [SerialBlock(*options) for _ in range(serial_depths[i - 1])]
            self.add_module(f"serial_blocks{i}", SerialBlocks(*blocks))
        if self.parallel:
            blocks = [
                ParallelBlock(embed_dims[3], mlp_ratios[3], crpes[1:], proj_drop_rate, drop_path_rate)
                for _ in range(parallel_depth)
            ]
            self.parallel_blocks = nn.ModuleList(blocks)
            self.norm2, self.norm3 = LayerNorm(embed_dims[1]), LayerNorm(embed_dims[2])
        self.norm4 = LayerNorm(embed_dims[3])
        if self.parallel:
            self.aggregate = nn.Conv1d(3, 1, 1)
        names = ("serial_blocks1", *["parallel_blocks"] * 3) if self.parallel else self.parts.stages
        self.feature_info = FeatureInfo(zip(embed_dims, (4, 8, 16, 32), names, strict=True))
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(embed_dims[3], num_classes) if num_classes else nn.Identity()
        init_linear_(self)
        for _, token in self.named_parameters(recurse=False):
            trunc_normal_(token, std=0.02)

    def serial(self, x: Tensor) -> tuple[list[Tensor], list[Size]]:
        """The four scales one after another: tokens and grids."""
        x1, s1 = self.patch_embed1(x, self.cls_token1)
        x1 = self.serial_blocks1(x1, s1)
        x2, s2 = self.patch_embed2(to_map(x1, s1), self.cls_token2)
        x2 = self.serial_blocks2(x2, s2)
        x3, s3 = self.patch_embed3(to_map(x2, s2), self.cls_token3)
        x3 = self.serial_blocks3(x3, s3)
        x4, s4 = self.patch_embed4(to_map(x3, s3), self.cls_token4)
        x4 = self.serial_blocks4(x4, s4)
        return [x1, x2, x3, x4], [s1, s2, s3, s4]

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 1 + H/32 * W/32, C)
        return self.norm4(self.serial(x)[0][3])

    def pool(self, x: Tensor) -> Tensor:
        if self.global_pool == "":
            return x
        return x[:, 0] if self.global_pool == "token" else x[:, 1:].mean(1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.pool(x))
        return x if pre_logits else self.head(x)

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        """The state is the tokens and grids of the scales so far."""
        scales = x if isinstance(x, list) else []
        if path == "parallel_blocks":
            tokens = self.join([tokens for tokens, _ in scales], [size for _, size in scales])
            scales = [(each, size) for each, (_, size) in zip(tokens, scales)]
            return scales, {path: scales[1:]}
        image = to_map(*scales[-1]) if scales else x
        tokens, size = self.get_submodule(f"patch_embed{path[-1]}")(image, getattr(self, f"cls_token{path[-1]}"))
        scales = [*scales, (step(tokens, size), size)]
        return scales, {path: scales[-1]}

    def _stopped(self, x: Any) -> Tensor:
        return x[-1][0]  # tokens of the last scale, as at the end

    def _ending(self, x: Any) -> Tensor:
        return x[0]

    def _level_norm(self, index: int) -> nn.Module | None:
        return getattr(self, f"norm{index + 1}") if f"norm{index + 1}" in self.parts.norm else None

    def _final_norm(self, x: Any) -> Any:
        return self.norm4(x[3][0])

    def _drop(self, paths: Iterable[str]) -> None:
        for path in paths:
            scale = path.removeprefix("serial_blocks")
            alone = ("patch_embed", "cls_token", "cpe", "crpe") if scale != path else ()
            super()._drop([path, *(f"{name}{scale}" for name in alone)])

    def pool_kind(self) -> str:
        return self.global_pool

    def _set_pool(self, global_pool: str) -> None:
        if global_pool not in ("", "token", "avg"):
            raise UsageError(f"global_pool is 'token', 'avg' or '', not '{global_pool}'")
        self.global_pool = global_pool

    def _blocks(self) -> list[nn.Module]:
        return [m for m in self.modules() if isinstance(m, SerialBlock | ParallelBlock)]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Each scale begins with a stem of its own."""
        groups: dict[str, Any] = {}
        for i in range(1, 5):
            groups[f"stem{i}"] = rf"^(?:cls_token|patch_embed|crpe|cpe){i}"
            groups[f"serial{i}"] = rf"^serial_blocks{i}\.(\d+)"
        groups["parallel"] = [(r"^parallel_blocks\.(\d+)", None), (r"^norm|^aggregate", (99999,))]
        return groups


class ShortenedCoaT(Shortened):
    """What is left of the parallel network ends in one scale, as the serial one does."""

    forward_head = CoaT.forward_head


class ParallelCoaT(CoaT):
    """With parallel blocks; class tokens of three scales are weighed into one."""

    parts = CoaT.parts._replace(stages=(*CoaT.parts.stages, "parallel_blocks"), norm=("norm2", "norm3", "norm4"),
                                tail=("aggregate",))  # fmt: skip
    shortened = ShortenedCoaT
    parallel = True
    reads_maps = False

    def _cut(self, level: str, chosen: list[int]) -> None:
        """Behind the last block nothing reads the scales without a level."""
        for scale in {2, 3, 4} - {i + 1 for i in chosen} if level == "parallel_blocks" else ():
            last = f"parallel_blocks.{len(self.parallel_blocks) - 1}"
            self._drop([f"{last}.mlp{scale}", f"{last}.norm2{scale}", f"norm{scale}"])

    def join(self, x: list[Tensor], sizes: list[Size]) -> list[Tensor]:
        """Let the last three scales exchange."""
        x1, x2, x3, x4 = x[0], x[1], x[2], x[3]
        for block in self.parallel_blocks:
            x2, x3, x4 = self.cpe2(x2, sizes[1]), self.cpe3(x3, sizes[2]), self.cpe4(x4, sizes[3])
            x2, x3, x4 = block(x2, x3, x4, sizes[1], sizes[2], sizes[3])
        return [x1, x2, x3, x4]

    def forward_features(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """(B, 3, H, W) -> tokens at strides 8, 16 and 32."""
        tokens, sizes = self.serial(x)
        tokens = self.join(tokens, sizes)
        return [self.norm2(tokens[1]), self.norm3(tokens[2]), self.norm4(tokens[3])]

    def forward_head(self, x: list[Tensor], pre_logits: bool = False) -> Tensor:  # type: ignore[override]
        pooled = torch.stack([self.pool(x[0]), self.pool(x[1]), self.pool(x[2])], dim=1)
        y = self.head_drop(self.aggregate(pooled).squeeze(1))
        return y if pre_logits else self.head(y)

    def _final_norm(self, x: Any) -> Any:
        return [self.norm2(x[1][0]), self.norm3(x[2][0]), self.norm4(x[3][0])]
