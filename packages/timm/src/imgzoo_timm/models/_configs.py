"""Configurations that networks of the field are built from; `_config_options` reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Options = dict[str, Any]


@dataclass
class ByoBlockCfg:
    """Blocks of a stage: kind, how many (`d`), channels, stride, group size, share of channels inside."""

    type: Any
    d: int
    c: int
    s: int = 2
    gs: Any = None
    br: float = 1.0
    attn_layer: str | None = None
    attn_kwargs: Options | None = None
    self_attn_layer: str | None = None
    self_attn_kwargs: Options | None = None
    block_kwargs: Options | None = None


@dataclass
class ByoModelCfg:
    blocks: tuple[Any, ...]
    downsample: str = "conv1x1"
    stem_type: str = "3x3"
    stem_pool: str | None = "maxpool"
    stem_chs: Any = 32
    width_factor: float = 1.0
    num_features: int = 0
    zero_init_last: bool = True
    fixed_input_size: bool = False
    act_layer: str = "relu"
    norm_layer: Any = "batchnorm"
    aa_layer: str = ""
    head_hidden_size: int | None = None
    head_type: str = "classifier"
    attn_layer: str | None = None
    attn_kwargs: Options = field(default_factory=dict)
    self_attn_layer: str | None = None
    self_attn_kwargs: Options = field(default_factory=dict)
    block_kwargs: Options = field(default_factory=dict)


@dataclass
class MaxxVitTransformerCfg:
    dim_head: int = 32
    head_first: bool = True
    expand_ratio: float = 4.0
    expand_first: bool = True
    shortcut_bias: bool = True
    attn_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0
    pool_type: str = "avg2"
    rel_pos_type: str = "bias"
    rel_pos_dim: int = 512
    partition_ratio: int = 32
    window_size: tuple[int, int] | None = None
    grid_size: tuple[int, int] | None = None
    no_block_attn: bool = False
    use_nchw_attn: bool = False
    init_values: float | None = None
    act_layer: str = "gelu"
    norm_layer: str = "layernorm2d"
    norm_layer_cl: str = "layernorm"
    norm_eps: float = 1e-6


@dataclass
class MaxxVitConvCfg:
    """Convolution blocks; norm and epsilon follow their kind where they are not said."""

    block_type: str = "mbconv"
    expand_ratio: float = 4.0
    expand_output: bool = True
    kernel_size: int = 3
    group_size: int = 1
    pre_norm_act: bool = False
    output_bias: bool = True
    stride_mode: str = "dw"
    pool_type: str = "avg2"
    downsample_pool_type: str = "avg2"
    padding: str = ""
    attn_early: bool = False
    attn_layer: str = "se"
    attn_act_layer: str = "silu"
    attn_ratio: float = 0.25
    init_values: float | None = 1e-6
    act_layer: str = "gelu"
    norm_layer: str = ""
    norm_layer_cl: str = ""
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        kinds = ("batchnorm2d", "", 1e-5) if self.block_type == "mbconv" else ("layernorm2d", "layernorm", 1e-6)
        self.norm_layer, self.norm_layer_cl = self.norm_layer or kinds[0], self.norm_layer_cl or kinds[1]
        self.norm_eps = kinds[2] if self.norm_eps is None else self.norm_eps


@dataclass
class MaxxVitCfg:
    embed_dim: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (2, 3, 5, 2)
    block_type: tuple[Any, ...] = ("C", "C", "T", "T")
    stem_width: Any = 64
    stem_bias: bool = False
    conv_cfg: MaxxVitConvCfg = field(default_factory=MaxxVitConvCfg)
    transformer_cfg: MaxxVitTransformerCfg = field(default_factory=MaxxVitTransformerCfg)
    head_hidden_size: int | None = None
    weight_init: str = "vit_eff"


@dataclass
class NfCfg:
    depths: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]
    alpha: float = 0.2
    stem_type: str = "3x3"
    stem_chs: int | None = None
    group_size: int | None = None
    attn_layer: str | None = None
    attn_kwargs: Options | None = None
    attn_gain: float = 2.0
    width_factor: float = 1.0
    bottle_ratio: float = 1 / 2
    num_features: int = 0
    ch_div: Any = 8
    """What channels are a multiple of: 8 alone in imgzoo's networks, as alpha is 0.2 and attn_gain 2."""
    reg: bool = False
    extra_conv: bool = False
    gamma_in_act: bool = False
    same_padding: bool = False
    """With gamma_in_act and skipinit, as DeepMind published it, or none of the three."""
    std_conv_eps: float = 1e-5
    skipinit: bool = False
    zero_init_fc: bool = False
    act_layer: str = "silu"


@dataclass
class RegNetCfg:
    depth: int = 21
    w0: int = 80
    wa: float = 42.63
    wm: float = 2.66
    group_size: int = 24
    bottle_ratio: float = 1.0
    se_ratio: float = 0.0
    group_min_ratio: float = 0.0
    stem_width: int = 32
    downsample: str | None = "conv1x1"
    linear_out: bool = False
    preact: bool = False
    num_features: int = 0
    act_layer: Any = "relu"
    norm_layer: Any = "batchnorm"


@dataclass
class MultiScaleVitCfg:
    """Widths and heads of one number double at each stage; strides of keys follow `stride_kv_adaptive`."""

    depths: tuple[int, ...] = (2, 3, 16, 3)
    embed_dim: Any = 96
    num_heads: Any = 1
    mlp_ratio: float = 4.0
    pool_first: bool = False
    expand_attn: bool = True
    qkv_bias: bool = True
    use_cls_token: bool = False
    use_abs_pos: bool = False
    residual_pooling: bool = True
    mode: str = "conv"
    kernel_qkv: tuple[int, int] = (3, 3)
    stride_q: tuple[tuple[int, int], ...] | None = ((1, 1), (2, 2), (2, 2), (2, 2))
    stride_kv: tuple[tuple[int, int], ...] | None = None
    stride_kv_adaptive: tuple[int, int] | None = (4, 4)
    patch_kernel: tuple[int, int] = (7, 7)
    patch_stride: tuple[int, int] = (4, 4)
    patch_padding: tuple[int, int] = (3, 3)
    pool_type: str = "max"
    rel_pos_type: str = "spatial"
    act_layer: Any = "gelu"
    norm_layer: Any = "layernorm"
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        count = len(self.depths)
        self.embed_dim, self.num_heads = (
            value if isinstance(value, (tuple, list)) else tuple(value * 2**i for i in range(count))
            for value in (self.embed_dim, self.num_heads)
        )
        if self.stride_kv_adaptive is not None and self.stride_kv is None:
            left, self.stride_kv = self.stride_kv_adaptive, ()
            for step in self.stride_q or ((1, 1),) * count:
                left = max(left[0] // step[0], 1), max(left[1] // step[1], 1)
                self.stride_kv += (left,)


@dataclass
class NaFlexVitCfg:
    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    scale_mlp_norm: bool = False
    num_kv_heads: Any = None
    qkv_bias: bool = True
    qk_norm: bool = False
    proj_bias: bool = True
    attn_drop_rate: float = 0.0
    scale_attn_inner_norm: bool = False
    use_key_only_attn_mask: bool = False
    init_values: Any = None
    drop_rate: float = 0.0
    pos_drop_rate: float = 0.0
    patch_drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    class_token: bool = False
    reg_tokens: int = 0
    pos_embed: str = "learned"
    pos_embed_grid_size: Any = (16, 16)
    pos_embed_interp_mode: str = "bicubic"
    pos_embed_ar_preserving: bool = False
    pos_embed_antialias: bool = True
    pos_embed_align_corners: bool = False
    pos_embed_use_grid_sample: bool = False
    rope_type: str = ""
    rope_temperature: float = 10000.0
    rope_ref_feat_shape: Any = None
    rope_grid_offset: float = 0.0
    rope_grid_indexing: str = "ij"
    rope_rotate_half: bool = False
    rope_shift_coords: Any = None
    rope_jitter_coords: Any = None
    rope_rescale_coords: Any = None
    rope_mrope_section: Any = None
    dynamic_img_pad: bool = False
    patchify_channels_last: bool = True
    pre_norm: bool = False
    final_norm: bool = True
    fc_norm: Any = None
    global_pool: str = "map"
    pool_include_prefix: bool = False
    attn_pool_num_heads: Any = None
    attn_pool_mlp_ratio: Any = None
    weight_init: str = ""
    fix_init: bool = True
    embed_proj_type: str = "linear"
    input_norm_layer: Any = None
    embed_norm_layer: Any = None
    norm_layer: Any = None
    act_layer: Any = None
    block_fn: Any = None
    mlp_layer: Any = None
    attn_layer: Any = None
    attn_type: str = "standard"
    attn_gated: bool = False
    swiglu_mlp: bool = False
    swiglu_align_to: int = 0
    qkv_fused: bool = True
    attn_only_layer_scale: bool = False
    enable_patch_interpolator: bool = False
