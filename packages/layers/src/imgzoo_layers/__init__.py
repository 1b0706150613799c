"""Building blocks of imgzoo's networks.

A map is (B, C, H, W), or (B, H, W, C) with channels last; tokens are (B, N, C).
"""

from .act import ACT, Act, act_fn, create_act, get_act
from .attention import Attending, Attention, DiffAttention, LayerScale, LayerScale2d, layer_scale_of, set_fused_attn
from .attention_pool import AttentionPool2d, AttentionPoolLatent, AttentionPoolPrr
from .bat import BatNonLocal, BilinearAttentionTransform
from .bottleneck_attention import BottleneckAttention
from .channel_scale import ChannelScale2d
from .class_attention import ClassAttention
from .conv import (
    CondConv2d,
    Conv2dSame,
    ConvNorm,
    ConvNormAct,
    MixedConv2d,
    Pointwise2d,
    Scale2d,
    SeparableConv,
    SeparableConvNormAct,
    create_conv,
)
from .cross_covariance import CrossCovarianceAttn, PositionalEncodingFourier
from .distance_bias import DistanceTable, distance_index
from .drop import (
    DropBlock2d,
    DropPath,
    PatchDropout,
    drop_block_2d,
    drop_path,
    drop_path_of,
    drop_path_rates,
    dropout_of,
)
from .evo_norm import EvoNorm2dS0, EvoNorm2dS0a, EvoNorm2dS1, EvoNorm2dS1a, EvoNorm2dS2, EvoNorm2dS2a
from .evo_norm_batch import EvoNorm2dB0, EvoNorm2dB1, EvoNorm2dB2
from .exchange import Acts, Norms
from .fast_norm import fast_group_norm, fast_layer_norm, fast_rms_norm, set_fast_norm
from .gate import (
    GATE,
    CircularEfficientChannelAttention,
    EffectiveSqueezeExcite,
    EfficientChannelAttention,
    GlobalContext,
    GlobalContextAdd,
    SqueezeExcite,
    create_gate,
)
from .halo import HaloAttention
from .head import ClassifierHead, ConvClassifier, ConvClassifierHead, Head, NormMlpHead, linear_or_none, norm_and_head
from .hidden_head import ConvHead, HiddenHead, HiddenPool
from .init import (
    init_conv_per_group_,
    init_fan_out_,
    init_linear_,
    lecun_normal_,
    trunc_normal_,
    trunc_normal_tf_,
    variance_scaling_,
)
from .lambda_ import GlobalLambdaLayer, LambdaLayer
from .learned_pool import LogSumExpPool, LogSumExpPool2d, SimPool, SimPool2d
from .map_attention import Attention2d, MultiQueryAttention, MultiQueryAttention2d
from .ml_decoder import MlDecoder
from .mlp import MLP, GeGlu, GlobalResponseNorm, GlobalResponseNormMlp, GluMlp, Mlp, SwiGlu, mlp_maker
from .non_local import NonLocal
from .norm import (
    NORM,
    FrozenBatchNorm2d,
    GroupNorm,
    GroupNorm1,
    LayerNorm,
    LayerNorm2d,
    LayerNormFp32,
    Norm,
    RmsNorm,
    RmsNorm2d,
    SimpleNorm,
    SimpleNorm2d,
    get_norm,
)
from .norm_act import (
    NORM_ACT,
    BatchNormAct2d,
    FilterResponseNorm2d,
    FilterResponseNormAct2d,
    GroupNorm1Act,
    GroupNormAct,
    LayerNormAct2d,
    NormAct,
    RmsNormAct2d,
    get_norm_act,
)
from .norm_linear import NormLinear, NormLinearHead, TwoHeads
from .padding import pad_same, pad_to_multiple, same_pad
from .patch_embed import FlexiKernel, FlexiPatchEmbed, HybridEmbed, PatchEmbed, resize_patch_kernel
from .place_gate import (
    Cbam,
    CoordinateAttention,
    EfficientLocalAttention,
    GatherExcite,
    SimpleCoordinateAttention,
    StripAttention,
)
from .pool import (
    AdaptivePool2d,
    AvgPool2dSame,
    BlurPool2d,
    GlobalPool,
    MaxPool2dSame,
    MedianPool2d,
    create_aa,
    mean_pool,
    residual_aa,
)
from .pool_norm import PoolNormHead, TokenPool
from .position import ConvPosition, resize_grid, resize_map, resize_map_last, resize_offsets
from .prune import fit_to_file
from .rel_pos import RelPosBias, RelPosBiasTf, RelPosMlp
from .relative_logits import RelativeLogits
from .reparam import fold_norm, reparameterize
from .rotary import (
    AnyGridRotary,
    AxialRotary,
    CenteredRotary,
    MixedRotary,
    MultimodalRotary,
    PixelRotary,
    axial_table,
    centered_table,
    pixel_table,
    rotate,
    rotate_patches,
)
from .rotary_attention import QvBiasAttention, RotaryAttention, SplitQvBiasAttention, SplitRotaryAttention
from .rotary_pool import RotaryAttentionPool2d
from .sequential import GridSequential, PairSequential, SharedSequential
from .shifted_windows import ShiftedWindows
from .space_to_depth import DepthToSpace, SpaceToDepth
from .stage import Stage
from .std_conv import ScaledStdConv2d, StdConv2d
from .stretch import stretch_weights
from .subsampled_attention import SubsampledAttention
from .tables import (
    BiasTable,
    BiasTableTf,
    Computed,
    GridTable,
    LastTable,
    MapTable,
    OffsetTable,
    PatchKernel,
    Table,
    Tabled,
    check_grid,
)
from .transformer import Block, GammaBlock
from .util import dilate, make_divisible, pair, per_stage
from .window import (
    LocalAttention,
    WindowAttending,
    WindowAttention,
    from_grid,
    from_windows,
    shift_mask,
    to_grid,
    to_windows,
)

__all__ = [
    "ACT", "GATE", "MLP", "NORM", "NORM_ACT", "Act", "Acts", "AdaptivePool2d", "AnyGridRotary", "Attending",
    "Attention", "Attention2d", "AttentionPool2d", "AttentionPoolLatent", "AttentionPoolPrr", "AvgPool2dSame",
    "AxialRotary", "BatNonLocal", "BatchNormAct2d", "BiasTable", "BiasTableTf", "BilinearAttentionTransform", "Block",
    "BlurPool2d", "BottleneckAttention", "Cbam", "CenteredRotary", "ChannelScale2d",
    "CircularEfficientChannelAttention", "ClassAttention", "ClassifierHead", "Computed", "CondConv2d", "Conv2dSame",
    "ConvClassifier", "ConvClassifierHead", "ConvHead", "ConvNorm", "ConvNormAct", "ConvPosition",
    "CoordinateAttention", "CrossCovarianceAttn", "DepthToSpace", "DiffAttention", "DistanceTable", "DropBlock2d",
    "DropPath", "EffectiveSqueezeExcite", "EfficientChannelAttention", "EfficientLocalAttention", "EvoNorm2dB0",
    "EvoNorm2dB1", "EvoNorm2dB2", "EvoNorm2dS0", "EvoNorm2dS0a", "EvoNorm2dS1", "EvoNorm2dS1a", "EvoNorm2dS2",
    "EvoNorm2dS2a", "FilterResponseNorm2d", "FilterResponseNormAct2d", "FlexiKernel", "FlexiPatchEmbed",
    "FrozenBatchNorm2d", "GammaBlock", "GatherExcite", "GeGlu", "GlobalContext", "GlobalContextAdd",
    "GlobalLambdaLayer", "GlobalPool", "GlobalResponseNorm", "GlobalResponseNormMlp", "GluMlp", "GridSequential",
    "GridTable", "GroupNorm", "GroupNorm1", "GroupNorm1Act", "GroupNormAct", "HaloAttention", "Head", "HiddenHead",
    "HiddenPool", "HybridEmbed", "LambdaLayer", "LastTable", "LayerNorm", "LayerNorm2d", "LayerNormAct2d",
    "LayerNormFp32", "LayerScale", "LayerScale2d", "LocalAttention", "LogSumExpPool", "LogSumExpPool2d", "MapTable",
    "MaxPool2dSame", "MedianPool2d", "MixedConv2d", "MixedRotary", "MlDecoder", "Mlp", "MultiQueryAttention",
    "MultiQueryAttention2d", "MultimodalRotary", "NonLocal", "Norm", "NormAct", "NormLinear", "NormLinearHead",
    "NormMlpHead", "Norms", "OffsetTable", "PairSequential", "PatchDropout", "PatchEmbed", "PatchKernel", "PixelRotary",
    "Pointwise2d", "PoolNormHead", "PositionalEncodingFourier", "QvBiasAttention", "RelPosBias", "RelPosBiasTf",
    "RelPosMlp",
    "RelativeLogits", "RmsNorm", "RmsNorm2d", "RmsNormAct2d", "RotaryAttention", "RotaryAttentionPool2d", "Scale2d",
    "ScaledStdConv2d", "SeparableConv", "SeparableConvNormAct", "SharedSequential", "ShiftedWindows", "SimPool",
    "SimPool2d", "SimpleCoordinateAttention", "SimpleNorm", "SimpleNorm2d", "SpaceToDepth", "SplitQvBiasAttention",
    "SplitRotaryAttention", "SqueezeExcite", "Stage", "StdConv2d", "StripAttention", "SubsampledAttention", "SwiGlu",
    "Table", "Tabled", "TokenPool", "TwoHeads", "WindowAttending", "WindowAttention", "act_fn", "axial_table",
    "centered_table", "check_grid", "create_aa", "create_act", "create_conv", "create_gate", "dilate", "distance_index",
    "drop_block_2d", "drop_path", "drop_path_of", "drop_path_rates", "dropout_of", "fast_group_norm", "fast_layer_norm",
    "fast_rms_norm", "fit_to_file", "fold_norm", "from_grid", "from_windows", "get_act", "get_norm", "get_norm_act",
    "init_conv_per_group_", "init_fan_out_", "init_linear_", "layer_scale_of", "lecun_normal_", "linear_or_none",
    "make_divisible", "mean_pool", "mlp_maker", "norm_and_head", "pad_same", "pad_to_multiple", "pair", "per_stage",
    "pixel_table", "reparameterize", "residual_aa", "resize_grid", "resize_map", "resize_map_last", "resize_offsets",
    "resize_patch_kernel", "rotate", "rotate_patches", "same_pad", "set_fast_norm", "set_fused_attn", "shift_mask",
    "stretch_weights", "to_grid", "to_windows", "trunc_normal_", "trunc_normal_tf_", "variance_scaling_",
]  # fmt: skip


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("imgzoo-layers")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
