"""The field's layers: native ones of `imgzoo_layers` under the field's arguments and attributes."""

from imgzoo_timm._door import furnish

NAMES = """
activations          .layers._act        swish mish sigmoid tanh hard_swish hard_sigmoid hard_mish gelu gelu_tanh
activations          .layers._act        Swish Mish Sigmoid Tanh HardSwish HardSigmoid HardMish GELU GELUTanh QuickGELU
activations          .layers._act        PReLU quick_gelu
create_act           .layers._act        get_act_fn get_act_layer create_act_layer
drop                 .layers._drop       DropPath drop_path DropBlock2d drop_block_2d calculate_drop_path_rates
patch_dropout        .layers._drop       PatchDropout PatchDropoutWithIndices patch_dropout_forward
weight_init          .layers._training   trunc_normal_ trunc_normal_tf_ lecun_normal_ variance_scaling_
weight_init          .layers._training   init_weight_vit init_weight_jax is_meta_device
helpers              .layers._helpers    to_ntuple to_1tuple to_2tuple to_3tuple to_4tuple make_divisible extend_tuple
helpers              .layers._helpers    get_device_dtype
config               .layers._config     is_scriptable is_exportable is_no_jit set_scriptable set_exportable set_no_jit
config               .layers._config     set_layer_config use_fused_attn set_fused_attn use_reentrant_ckpt
config               .layers._config     set_reentrant_ckpt
fast_norm            .layers._config     is_fast_norm set_fast_norm
fast_norm            .layers._norm_forms fast_group_norm fast_layer_norm fast_rms_norm fast_rms_norm2d
helpers              .layers._helpers    is_exporting
-                    torch.compiler      disable_compiler=disable
mlp                  .layers._mlp        Mlp GluMlp SwiGLU SwiGLUPacked GatedMlp ConvMlp GlobalResponseNormMlp
attention            .layers._attention  Attention AttentionRope maybe_add_mask resolve_self_attn_mask
diff_attention       .layers._attention  DiffAttention
layer_scale          .layers._attention  LayerScale LayerScale2d
attention_pool       .layers._attention  AttentionPoolLatent AttentionPoolPrr
attention2d          .layers._map_attention Attention2d MultiQueryAttentionV2 MultiQueryAttention2d
selective_kernel     .layers._selective  SelectiveKernel
split_attn           .layers._selective  SplitAttn
inplace_abn          .layers._selective  InplaceAbn
other_pool           .layers._map_attention LsePlus1d LsePlus2d SimPool1d SimPool2d
attention_pool2d     .layers._attention  AttentionPool2d RotAttentionPool2d
patch_embed          .layers._patch_embed PatchEmbed PatchEmbedWithSize resample_patch_embed
patch_embed          .layers._patch_embed PatchEmbedInterpolator
hybrid_embed         .layers._patch_embed HybridEmbed HybridEmbedWithSize
format               .layers._patch_embed Format nchw_to nhwc_to get_spatial_dim get_channel_dim
pos_embed            .layers._patch_embed resample_abs_pos_embed resample_abs_pos_embed_nhwc
pos_embed_sincos     .layers._position   build_sincos2d_pos_embed
pos_embed_sincos     .layers._rotary     RotaryEmbedding RotaryEmbeddingCat RotaryEmbeddingDinoV3 RotaryEmbeddingMixed
pos_embed_sincos     .layers._rotary     RotaryEmbeddingMRope FourierEmbed create_rope_embed apply_rot_embed
pos_embed_sincos     .layers._rotary     apply_rot_embed_cat apply_rot_embed_list apply_keep_indices_nlc freq_bands
pos_embed_sincos     .layers._rotary     pixel_freq_bands build_fourier_pos_embed build_rotary_pos_embed
pos_embed_sincos     .layers._rotary     get_mixed_freqs get_mixed_grid init_random_2d_freqs make_coords_dinov3 rot
pos_embed_sincos     .layers._rotary     rope_rotate_half swap_shape_xy _build_grid _build_bands _coord_aug_config
pos_embed_sincos     .layers._rotary     _apply_coord_augs
pos_embed_rel        .layers._position   RelPosBias RelPosBiasTf RelPosMlp gen_relative_log_coords
pos_embed_rel        .layers._position   gen_relative_position_index resize_rel_pos_bias_table
pos_embed_rel        .layers._position   resize_rel_pos_bias_table_simple resize_rel_pos_bias_table_levit
norm                 .layers._norm       LayerNorm LayerNorm2d LayerNormFp32 GroupNorm GroupNorm1 RmsNorm RmsNorm2d
norm                 .layers._norm       SimpleNorm SimpleNorm2d
norm                 .layers._norm_forms LayerNorm2dFp32 RmsNormFp32 RmsNorm2dFp32 SimpleNormFp32 SimpleNorm2dFp32
create_norm          .layers._norm_names get_norm_layer create_norm_layer
norm_act             .layers._norm_forms LayerNormAct LayerNormActFp32 LayerNormAct2dFp32 RmsNormAct RmsNormActFp32
norm_act             .layers._norm_forms RmsNormAct2dFp32
evo_norm             .layers._norm_forms EvoNorm2dB0 EvoNorm2dB1 EvoNorm2dB2 EvoNorm2dS0 EvoNorm2dS0a EvoNorm2dS1
evo_norm             .layers._norm_forms EvoNorm2dS1a EvoNorm2dS2 EvoNorm2dS2a
filter_response_norm .layers._norm_forms FilterResponseNormAct2d FilterResponseNormTlu2d
norm_act             .layers._norm       BatchNormAct2d GroupNormAct GroupNorm1Act LayerNormAct2d RmsNormAct2d
norm_act             .layers._norm       FrozenBatchNormAct2d
norm_act             .layers._training   SyncBatchNormAct convert_sync_batchnorm
norm_act             .layers._frozen     FrozenBatchNorm2d freeze_batch_norm_2d unfreeze_batch_norm_2d
create_norm_act      .layers._norm_names get_norm_act_layer create_norm_act_layer
split_batchnorm      .layers._training   SplitBatchNorm2d convert_splitbn_model
linear               .layers._conv       Linear
padding              .layers._conv       get_padding get_same_padding pad_same
conv2d_same          .layers._conv       Conv2dSame
create_conv2d        .layers._conv       create_conv2d
conv_bn_act          .layers._conv       ConvNormAct ConvBnAct ConvNormActAa
separable_conv       .layers._conv       SeparableConv2d SeparableConvNormAct
mixed_conv2d         .layers._conv       MixedConv2d
cond_conv2d          .layers._conv       CondConv2d get_condconv_initializer
space_to_depth       .layers._conv       SpaceToDepth DepthToSpace
pool2d_same          .layers._conv       AvgPool2dSame MaxPool2dSame create_pool2d max_pool2d_same
pool2d_same          .layers._conv       avg_pool2d_same
blur_pool            .layers._conv       BlurPool2d create_aa
std_conv             .layers._conv       StdConv2d StdConv2dSame ScaledStdConv2d ScaledStdConv2dSame
adaptive_avgmax_pool .layers._pool       SelectAdaptivePool2d AdaptiveAvgMaxPool2d adaptive_avgmax_pool2d
adaptive_avgmax_pool .layers._pool       select_adaptive_pool2d
pool1d               .layers._pool       global_pool_nlc
classifier           .layers._pool       ClassifierHead NormMlpClassifierHead
classifier           .layers._pool       ClNormMlpClassifierHead create_classifier
test_time_pool       .layers._pool       TestTimePoolHead apply_test_time_pool
squeeze_excite       .layers._gate       SqueezeExcite SEModule EffectiveSqueezeExcite EffectiveSEModule
cbam                 .layers._gate       CbamModule LightCbamModule
grn                  .layers._mlp        GlobalResponseNorm
eca                  .layers._gate       EcaModule CecaModule EfficientChannelAttn CircularEfficientChannelAttn
gather_excite        .layers._gate       GatherExcite
global_context       .layers._gate       GlobalContext
non_local_attn       .layers._gate       NonLocalAttn BatNonLocalAttn
create_attn          .layers._gate       get_attn create_attn
_fx                  .layers._training   create_feature_extractor get_graph_node_names register_notrace_module
_fx                  .layers._training   is_notrace_module get_notrace_modules register_notrace_function
_fx                  .layers._training   is_notrace_function get_notrace_functions
grid                 .layers._training   ndgrid meshgrid
typing               .layers._typing     LayerType PadType
"""

INSTEAD = {
    "*_me": "activations of imgzoo_timm.layers keep no more than they need, by no names of their own",
    "bottleneck_attn": "imgzoo_layers.bottleneck_attention has it",
    "halo_attn": "imgzoo_layers.halo has it",
    "lambda_layer": "imgzoo_layers.lambda_ has it",
    "ml_decoder": "imgzoo_layers.ml_decoder has it",
    "coord_attn": "create_attn makes them by name: coord, scoord, ela, strip (imgzoo_layers.place_gate)",
    "median_pool": "no network of imgzoo has it: torch.nn.functional.unfold and a median make it",
    "interpolate": "resample_abs_pos_embed and resize_rel_pos_bias_table of imgzoo_timm.layers resize tables",
}
"""What is not here on purpose, and imgzoo's way."""

__getattr__, __dir__ = furnish(__name__, NAMES, "imgzoo's blocks are in imgzoo_layers", instead=INSTEAD)
