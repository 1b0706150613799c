"""The other networks that research code subclasses: ResNet, Swin, ConvNeXt, EfficientNet, and their blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from imgzoo.errors import OptionError
from imgzoo_archs_cnn import convnext, resnet, sknet
from imgzoo_archs_efficientnet import builder, efficientnet
from imgzoo_archs_transformer import swin_transformer, swin_transformer_v2, swin_transformer_v2_cr
from imgzoo_layers import window
from imgzoo_layers.act import create_act
from imgzoo_timm.layers._act import get_act_layer
from imgzoo_timm.layers._base import adapter, placed
from imgzoo_timm.layers._drop import DropPath
from imgzoo_timm.layers._helpers import make_divisible, to_2tuple
from imgzoo_timm.layers._patch_embed import PatchEmbed

from ._classes import spelled
from ._initial import draw
from ._networks import Network


def told(given: dict[str, Any], *left: str) -> dict[str, Any]:
    """Arguments of a constructor from its `locals()`."""
    return {key: value for key, value in given.items()
            if key not in ("self", "__class__", "device", "dtype", *left)}  # fmt: skip


def built(self: Any, native: type, given: dict[str, Any], device: Any, dtype: Any) -> None:
    """Run a native constructor on options in the field's words, and finish."""
    with torch.device(device) if device is not None else torch.get_default_device():
        native.__init__(self, **spelled(native, given))  # type: ignore[misc]
    self.after_construction()
    self.to(dtype=dtype)


# ResNet


def _block(self: Any, native: Any, inplanes: int, planes: int, stride: int, downsample: Any, cardinality: int,
           base_width: int, reduce_first: int, dilation: int, first_dilation: int | None, act_layer: Any,
           norm_layer: Any, attn_layer: Any, aa_layer: Any, drop_block: Any, drop_path: Any) -> None:  # fmt: skip
    def act() -> nn.Module:
        return create_act(act_layer, inplace=True)

    aa = spelled(resnet.ResNet, {"aa_layer": aa_layer}).get("aa")
    gate = attn_layer if attn_layer is None or callable(attn_layer) else _gate(attn_layer)
    blocks = drop_block or (lambda: None)
    native.__init__(self, inplanes, planes, stride, first_dilation or dilation, dilation, downsample, norm_layer, act,
                    aa, gate, blocks, 0.0, cardinality, base_width, reduce_first)  # fmt: skip
    self.drop_path, self.stride, self.dilation = drop_path, stride, dilation


def _gate(name: str) -> Any:
    from imgzoo_timm.layers._gate import get_attn

    return get_attn(name)


@adapter
@placed
class BasicBlock(resnet.BasicBlock):
    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: Any = None, cardinality: int = 1,
                 base_width: int = 64, reduce_first: int = 1, dilation: int = 1, first_dilation: int | None = None,
                 act_layer: Any = nn.ReLU, norm_layer: Any = nn.BatchNorm2d, attn_layer: Any = None,
                 aa_layer: Any = None, drop_block: Any = None, drop_path: Any = None):  # fmt: skip
        if cardinality != 1 or base_width != 64:
            raise OptionError("a basic block has one group of 64 channels: use Bottleneck")
        _block(self, resnet.BasicBlock, **told(locals()))


@adapter
@placed
class Bottleneck(resnet.Bottleneck):
    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: Any = None, cardinality: int = 1,
                 base_width: int = 64, reduce_first: int = 1, dilation: int = 1, first_dilation: int | None = None,
                 act_layer: Any = nn.ReLU, norm_layer: Any = nn.BatchNorm2d, attn_layer: Any = None,
                 aa_layer: Any = None, drop_block: Any = None, drop_path: Any = None):  # fmt: skip
        _block(self, resnet.Bottleneck, **told(locals()))


def _selecting(self: Any, native: Any, sk_kwargs: dict[str, Any] | None, given: dict[str, Any]) -> None:
    """The blocks of SKNet, whose choice of kernels takes options of its own."""
    chosen = {"rd_ratio": 1 / 16, "rd_divisor": 8, "split_input": True, **(sk_kwargs or {})}
    norm, act, blocks = given["norm_layer"], given["act_layer"], given["drop_block"] or (lambda: None)
    before = given["first_dilation"] or given["dilation"]
    native.__init__(self, given["inplanes"], given["planes"], given["stride"], before, given["dilation"],
                    given["downsample"], norm, partial(create_act, act, inplace=True),
                    given["aa_layer"], given["attn_layer"], blocks, 0.0, given["cardinality"], given["base_width"],
                    given["reduce_first"], **chosen)  # fmt: skip
    self.drop_path = given["drop_path"] or nn.Identity()


@adapter
@placed
class SelectiveKernelBasic(sknet.BasicBlock):
    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: Any = None, cardinality: int = 1,
                 base_width: int = 64, sk_kwargs: Any = None, reduce_first: int = 1, dilation: int = 1,
                 first_dilation: int | None = None, act_layer: Any = nn.ReLU, norm_layer: Any = nn.BatchNorm2d,
                 attn_layer: Any = None, aa_layer: Any = None, drop_block: Any = None,
                 drop_path: Any = None):  # fmt: skip
        _selecting(self, sknet.BasicBlock, sk_kwargs, locals())


@adapter
@placed
class SelectiveKernelBottleneck(sknet.Bottleneck):
    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: Any = None, cardinality: int = 1,
                 base_width: int = 64, sk_kwargs: Any = None, reduce_first: int = 1, dilation: int = 1,
                 first_dilation: int | None = None, act_layer: Any = nn.ReLU, norm_layer: Any = nn.BatchNorm2d,
                 attn_layer: Any = None, aa_layer: Any = None, drop_block: Any = None,
                 drop_path: Any = None):  # fmt: skip
        _selecting(self, sknet.Bottleneck, sk_kwargs, locals())


class Bridge:
    """A block in the field's arguments where a native network makes one in its own."""

    def __init__(self, block: Any, options: dict[str, Any]):
        self.block, self.options, self.expansion = block, options, block.expansion

    def __call__(
        self,
        dim_in: int,
        dim: int,
        stride: int,
        before: int,
        dilation: int,
        downsample: Any,
        *,
        norm: Any,
        act: Any,
        aa: Any,
        gate: Any,
        drop_block: Any,
        drop_path: float,
        **numbers: Any,
    ) -> nn.Module:
        made = {"attn_layer": gate} if gate is not None else {}
        kind = get_act_layer(act.args[0])  # a class passes through
        blocks = drop_block if drop_block() is not None else None
        return self.block(dim_in, dim, stride, downsample, dilation=dilation, first_dilation=before,
                          act_layer=kind, norm_layer=norm, aa_layer=aa, drop_block=blocks,
                          drop_path=DropPath(drop_path) if drop_path > 0 else None, **numbers, **made,
                          **self.options)  # fmt: skip


@adapter
class ResNet(Network, resnet.ResNet):
    def __init__(self, block: Any, layers: Sequence[int], num_classes: int = 1000, in_chans: int = 3,
                 output_stride: int = 32, global_pool: str = "avg", cardinality: int = 1, base_width: int = 64,
                 stem_width: int = 64, stem_type: str = "", replace_stem_pool: bool = False,
                 block_reduce_first: int = 1, down_kernel_size: int = 1, avg_down: bool = False,
                 channels: Sequence[int] = (64, 128, 256, 512), act_layer: Any = nn.ReLU,
                 norm_layer: Any = nn.BatchNorm2d, aa_layer: Any = None, drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0, drop_block_rate: float = 0.0, zero_init_last: bool = True,
                 block_args: dict[str, Any] | None = None, device: Any = None, dtype: Any = None):  # fmt: skip
        given = told(locals(), "block", "layers", "block_args", "norm_layer", "act_layer")
        options = dict(block_args or {})
        bridge = Bridge(block, options)
        with torch.device(device) if device is not None else torch.get_default_device():
            resnet.ResNet.__init__(self, layers=layers, block=bridge, norm=norm_layer, act=act_layer,
                                   **spelled(resnet.ResNet, given))  # fmt: skip
        self.after_construction()
        self.to(dtype=dtype)


# Swin


def window_partition(x: torch.Tensor, window_size: Any) -> torch.Tensor:
    """(B, H, W, C) -> (B * windows, h, w, C)."""
    high, wide = to_2tuple(window_size)
    batch, height, width, dim = x.shape
    x = x.view(batch, height // high, high, width // wide, wide, dim)
    return x.transpose(2, 3).reshape(-1, high, wide, dim)


def window_reverse(windows: torch.Tensor, window_size: Any, H: int, W: int) -> torch.Tensor:
    """(B * windows, h, w, C) -> (B, H, W, C)."""
    high, wide = to_2tuple(window_size)
    x = windows.view(-1, H // high, W // wide, high, wide, windows.shape[-1])
    return x.transpose(2, 3).reshape(-1, H, W, windows.shape[-1])


def resolve_stage_window_sizes(window_size: Any, num_stages: int) -> tuple[tuple[int, int], ...]:
    """One window a stage, from a number, a pair for all, or a list of either."""
    return tuple(swin_transformer.windows_of(window_size, num_stages))


class Windowed:
    """In front of attention in windows, and of blocks around it: what clients read of windows and their shift."""

    @property
    def window_size(self: Any) -> tuple[int, int]:
        return self.window

    @property
    def window_area(self: Any) -> int:
        return self.window[0] * self.window[1]


class WindowedBlock(Windowed):
    @property
    def shift_size(self: Any) -> tuple[int, int]:
        return self.shift

    @property
    def input_resolution(self: Any) -> tuple[int, int]:
        return self.resolution

    @property
    def dynamic_mask(self: Any) -> bool:
        return self.dynamic


@adapter
@placed
class WindowAttention(Windowed, window.WindowAttention):
    def __init__(self, dim: int, num_heads: int, head_dim: int | None = None, window_size: Any = 7,
                 qkv_bias: bool = True, attn_drop: float = 0.0, proj_drop: float = 0.0):  # fmt: skip
        super().__init__(dim, num_heads, to_2tuple(window_size), head_dim, qkv_bias, attn_drop, proj_drop)


@adapter
@placed
class PatchMerging(swin_transformer.PatchMerging):
    def __init__(self, dim: int, out_dim: int | None = None, norm_layer: Any = nn.LayerNorm):
        super().__init__(dim, out_dim or 2 * dim)
        self.norm = norm_layer(4 * dim)


@adapter
@placed
class SwinTransformerBlock(WindowedBlock, swin_transformer.Block):
    def __init__(self, dim: int, input_resolution: Any, num_heads: int = 4, head_dim: int | None = None,
                 window_size: Any = 7, shift_size: Any = 0, always_partition: bool = False,
                 dynamic_mask: bool = False, mlp_ratio: float = 4.0, qkv_bias: bool = True, proj_drop: float = 0.0,
                 attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: Any = nn.GELU,
                 norm_layer: Any = nn.LayerNorm):  # fmt: skip
        half = tuple(side // 2 for side in to_2tuple(window_size))
        if to_2tuple(shift_size) not in ((0, 0), half):
            raise OptionError(f"windows are shifted by half of them, {half}, or not at all, not by {shift_size}")
        super().__init__(dim, num_heads, head_dim, to_2tuple(input_resolution), to_2tuple(window_size),
                         to_2tuple(shift_size) == half and any(half), always_partition, dynamic_mask, mlp_ratio,
                         qkv_bias, proj_drop, attn_drop, drop_path)  # fmt: skip
        self.mlp.act = act_layer()
        self.norm1, self.norm2 = norm_layer(dim), norm_layer(dim)


@adapter
class WindowAttentionV2(Windowed, swin_transformer_v2.CosineAttention):
    pass


@adapter
class SwinTransformerV2Block(WindowedBlock, swin_transformer_v2.Block):
    pass


@adapter
class WindowMultiHeadAttention(Windowed, swin_transformer_v2_cr.WindowMultiHeadAttention):
    pass


@adapter
class SwinTransformerV2CrBlock(WindowedBlock, swin_transformer_v2_cr.Block):
    @property
    def feat_size(self: Any) -> tuple[int, int]:
        return self.resolution


@adapter
class SwinTransformer(Network, swin_transformer.SwinTransformer):
    def __init__(self, img_size: Any = 224, patch_size: int = 4, in_chans: int = 3, num_classes: int = 1000,
                 global_pool: str = "avg", embed_dim: int = 96, depths: Sequence[int] = (2, 2, 6, 2),
                 num_heads: Sequence[int] = (3, 6, 12, 24), head_dim: int | None = None, window_size: Any = 7,
                 always_partition: bool = False, strict_img_size: bool = True, dynamic_img_size: bool = False,
                 mlp_ratio: float = 4.0, qkv_bias: bool = True, drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 attn_drop_rate: float = 0.0, drop_path_rate: float = 0.1, embed_layer: Any = PatchEmbed,
                 norm_layer: Any = nn.LayerNorm, weight_init: str = "", device: Any = None,
                 dtype: Any = None):  # fmt: skip
        if embed_layer is not PatchEmbed or getattr(norm_layer, "func", norm_layer) not in (nn.LayerNorm, "layernorm"):
            raise OptionError("Swin has layer norms and a patch embedding of its own: replace them after construction")
        dynamic_img_size = dynamic_img_size or not strict_img_size
        given = told(locals(), "embed_layer", "norm_layer", "weight_init", "strict_img_size")
        built(self, swin_transformer.SwinTransformer, given, device, dtype)
        draw(self, weight_init)
        if isinstance(norm_layer, partial):
            for module in self.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = norm_layer.keywords.get("eps", module.eps)

    def after_construction(self) -> None:
        super().after_construction()
        self.num_layers, self.output_fmt = len(self.layers), "NHWC"
        self.embed_dim = self.feature_info.levels[0].channels


# ConvNeXt


@adapter
class ConvNeXt(Network, convnext.ConvNeXt):
    def __init__(self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg", output_stride: int = 32,
                 depths: Sequence[int] = (3, 3, 9, 3), dims: Sequence[int] = (96, 192, 384, 768),
                 kernel_sizes: Any = 7, ls_init_value: float | None = 1e-6, stem_type: str = "patch",
                 patch_size: int = 4, head_init_scale: float = 1.0, head_norm_first: bool = False,
                 head_hidden_size: int | None = None, conv_mlp: bool = False, conv_bias: bool = True,
                 use_grn: bool = False, act_layer: Any = "gelu", norm_layer: Any = None, norm_eps: float | None = None,
                 drop_rate: float = 0.0, drop_path_rate: float = 0.0, device: Any = None,
                 dtype: Any = None):  # fmt: skip
        if patch_size != 4 or not conv_bias:
            raise OptionError("ConvNeXt has a stem of stride 4 and biases here: see imgzoo_archs_cnn.convnext")
        given = told(locals(), "patch_size", "conv_bias", "kernel_sizes", "ls_init_value")
        kernels = (kernel_sizes,) * 4 if isinstance(kernel_sizes, int) else tuple(kernel_sizes)
        options = spelled(convnext.ConvNeXt, given)
        with torch.device(device) if device is not None else torch.get_default_device():
            convnext.ConvNeXt.__init__(self, kernels=kernels, layer_scale=ls_init_value, **options)
        self.drop_rate = drop_rate
        self.after_construction()
        self.to(dtype=dtype)


# EfficientNet


def round_channels(channels: float, multiplier: float = 1.0, divisor: int = 8, channel_min: int | None = None,
                   round_limit: float = 0.9) -> Any:  # fmt: skip
    return make_divisible(channels * multiplier, divisor, channel_min, round_limit) if multiplier else channels


def decode_arch_def(arch_def: Sequence[Sequence[str]], depth_multiplier: Any = 1.0, depth_trunc: str = "ceil",
                    experts_multiplier: int = 1, fix_first_last: bool = False,
                    group_size: int | None = None) -> list[list[builder.Row]]:  # fmt: skip
    """Block strings as rows, one a block, as `EfficientNet` takes them."""
    depths = list(depth_multiplier) if isinstance(depth_multiplier, (tuple, list)) else \
        [depth_multiplier] * len(arch_def)  # fmt: skip
    if fix_first_last:
        depths[0] = depths[-1] = 1.0
    stages = builder.decode_stages(arch_def, depths, depth_trunc)
    if experts_multiplier > 1:
        stages = [[_more(row, "cc", experts_multiplier) for row in rows] for rows in stages]
    if group_size is not None:
        stages = [[row._replace(cells={"gs": str(group_size), **row.cells}) if row.kind in ("ds", "dsa", "ir") else row
                   for row in rows] for rows in stages]  # fmt: skip
    return stages


def _more(row: builder.Row, cell: str, factor: int) -> builder.Row:
    return row._replace(cells={**row.cells, cell: str(row.number(cell) * factor)}) if cell in row.cells else row


def _text(row: builder.Row) -> str:
    """The block string of a row."""
    acts = {act: short for short, act in builder.ACTS.items()}
    flag = {True: "skip", False: "noskip"}[row.skip] if row.kind in ("cn", "dsa") or not row.skip else ""
    act = f"n{acts[row.act]}" if row.act else ""
    return "_".join(filter(None, [row.kind, "r1", *(key + value for key, value in row.cells.items()), act,
                                  "" if flag == "noskip" and row.kind in ("cn", "dsa") else flag]))  # fmt: skip


@adapter
class EfficientNet(Network, efficientnet.EfficientNet):
    def __init__(self, block_args: Any, num_classes: int = 1000, num_features: int = 1280, in_chans: int = 3,
                 stem_size: int = 32, stem_kernel_size: int = 3, fix_stem: bool = False, output_stride: int = 32,
                 pad_type: str = "", act_layer: Any = None, norm_layer: Any = None, aa_layer: Any = None,
                 se_layer: Any = None, round_chs_fn: Callable[..., Any] = round_channels, drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0, global_pool: str = "avg", device: Any = None,
                 dtype: Any = None):  # fmt: skip
        given = told(locals(), "block_args", "round_chs_fn", "stem_kernel_size")
        widths = dict(getattr(round_chs_fn, "keywords", {}))
        if getattr(round_chs_fn, "func", round_chs_fn) is not round_channels or widths.keys() - WIDTHS.keys():
            raise OptionError(
                "round_chs_fn is round_channels, or a partial of it with multiplier, divisor, round_limit"
            )
        if given["norm_layer"] is not None:
            given["norm_layer"], eps = plain_norm(norm_layer)
            given["eps"] = eps
        options = spelled(efficientnet.EfficientNet, {**given, **{WIDTHS[key]: each for key, each in widths.items()}})
        stages = [[row if isinstance(row, str) else _text(row) for row in rows] for rows in block_args]
        with torch.device(device) if device is not None else torch.get_default_device():
            efficientnet.EfficientNet.__init__(self, stages=stages, stem_kernel=stem_kernel_size, **options)
        self.after_construction()
        self.to(dtype=dtype)


WIDTHS = {"multiplier": "width", "divisor": "divisor", "round_limit": "round_limit"}


def plain_norm(norm_layer: Any) -> tuple[Any, float | None]:
    """A norm without the epsilon that a `partial` brings, and that epsilon."""
    keywords = dict(getattr(norm_layer, "keywords", {}))
    eps = keywords.pop("eps", None)
    keywords.pop("momentum", None)
    plain = getattr(norm_layer, "func", norm_layer)
    return (partial(plain, **keywords) if keywords else plain), eps


def get_bn_args_tf() -> dict[str, float]:
    return {"momentum": 1 - 0.99, "eps": 1e-3}


def resolve_bn_args(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Batch norm arguments taken out of options."""
    args = get_bn_args_tf() if kwargs.pop("bn_tf", False) else {}
    for word, key in (("bn_momentum", "momentum"), ("bn_eps", "eps")):
        if (value := kwargs.pop(word, None)) is not None:
            args[key] = value
    return args


def resolve_act_layer(kwargs: dict[str, Any], default: str = "relu") -> Any:
    from imgzoo_timm.layers._act import get_act_layer

    return get_act_layer(kwargs.pop("act_layer", default))


for each in (ResNet, SwinTransformer, ConvNeXt, EfficientNet):  # clients look beside a class for its functions
    each.__module__ = f"{__package__}.{each.__mro__[2].__module__.rpartition('.')[2]}"
