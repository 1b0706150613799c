"""Options in the field's words build here what they build in the peer: the same keys, the same numbers."""

from functools import partial

import pytest
import torch
from torch import nn

import imgzoo

from kit import TOLERANCE, pair, perturb, timm
from small import image

pytestmark = pytest.mark.parity

RESNET = {"stem_type": "deep", "stem_width": 32, "avg_down": True, "aa_layer": nn.AvgPool2d, "drop_block_rate": 0.1}
TOWER = {"embed_dim": 32, "depth": 2, "num_heads": 4, "patch_size": 8, "num_classes": 5}
ROPED = {"embed_dim": 96, "num_heads": 3, "depth": 1, "num_classes": 5}
NAFLEX = {
    "eva": {"attn_type": "eva", "init_values": 0.5},
    "eva, apart": {"attn_type": "eva", "qkv_fused": False, "norm_layer": "rmsnorm", "pre_norm": True},
    "eva, turned": {"attn_type": "eva", "rope_type": "axial", "qkv_bias": False},
    "keys": {"attn_type": "rope", "act_layer": "relu"},
    "shared keys": {"attn_type": "rope", "qkv_fused": False, "num_kv_heads": 1, "qk_norm": True},
    "shared keys, turned": {"rope_type": "axial", "qkv_fused": False, "num_kv_heads": (1, 3), "depth": 2},
    "gate": {"attn_gated": True, "attn_only_layer_scale": True, "init_values": 0.5},
    "gate, normed": {"attn_gated": True, "attn_type": "rope", "scale_attn_inner_norm": True, "qkv_bias": False},
    "gate, turned": {"attn_gated": True, "rope_type": "mixed", "swiglu_mlp": True},
    "difference": {"attn_layer": "diff", "depth": 2, "qk_norm": True, "scale_attn_inner_norm": True},
    "gated mlp": {"swiglu_mlp": True, "act_layer": "relu"},
    "gated mlp, normed": {"swiglu_mlp": True, "scale_mlp_norm": True},
    "gated mlp, rounded": {"swiglu_mlp": True, "swiglu_align_to": 40, "mlp_ratio": 3.1},
    "one scale": {"attn_only_layer_scale": True, "init_values": 0.5},
    "nowhere": {"pos_embed": "none"},
    "only turned": {"pos_embed": "none", "rope_type": "axial"},
    "mean of all": {"pool_include_prefix": True, "class_token": True},
    "map of all": {"pool_include_prefix": True, "global_pool": "map"},
    "maximum of all": {"pool_include_prefix": True, "global_pool": "avgmax"},
    "convolution": {"embed_proj_type": "conv", "embed_norm_layer": "layernorm"},
}
GEMMA = {"head_dim": 16, "intermediate_size": 64, "position_embedding_size": 32}
CASES = {
    "vit": ("test_vit", {"init_values": 1e-5, "dynamic_img_size": True, "reg_tokens": 4, "no_embed_class": True}),
    "vit, parts": ("test_vit", {"act_layer": nn.SiLU, "mlp_layer": timm.layers.SwiGLUPacked, "init_values": 0.1}),
    "vit, rms": ("test_vit", {"norm_layer": "rmsnorm", "act_layer": "gelu_tanh", "mlp_layer": timm.layers.SwiGLU}),
    "vit, torch's norm": ("test_vit", {"norm_layer": nn.LayerNorm, "attn_layer": "diff"}),
    "vit, epsilon": ("test_vit", {"norm_layer": partial(nn.LayerNorm, eps=0.1), "pos_embed": "learn"}),
    "vit, block": ("test_vit", {"block_fn": timm.models.vision_transformer.ParallelScalingBlock}),
    "vit, norm of patches": ("test_vit", {"embed_norm_layer": "rmsnorm", "pre_norm": True}),
    "vit, torch's norm of patches": ("test_vit", {"embed_norm_layer": partial(nn.LayerNorm, eps=0.1)}),
    "aimv2, another norm of patches": ("aimv2_large_patch14_224", {"depth": 1, "embed_norm_layer": "layernorm"}),
    "aimv2, no norm of patches": ("aimv2_large_patch14_224", {"depth": 1, "embed_norm_layer": None}),
    "deit, norm of patches": ("deit_tiny_distilled_patch16_224", {"depth": 1, "embed_norm_layer": "layernorm"}),
    "deit": ("deit_tiny_distilled_patch16_224", {"depth": 2, "init_values": 0.1, "act_layer": "silu"}),
    "beit": ("beit_base_patch16_224", {"depth": 2, "embed_dim": 96, "num_heads": 3, "init_values": 0.2}),
    "beit, positions": ("beit_base_patch16_224", {"depth": 2, "embed_dim": 96, "num_heads": 3,
                                                  "use_abs_pos_emb": True}),
    "beit, shared": ("beit_base_patch16_224", {"depth": 2, "embed_dim": 96, "num_heads": 3, "init_values": 0.2,
                                               "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}),
    "beit, both": ("beit_base_patch16_224", {"depth": 2, "embed_dim": 96, "num_heads": 3, "init_values": 0.2,
                                             "use_shared_rel_pos_bias": True}),
    "eva": ("eva02_tiny_patch14_224", {"depth": 2, "norm_layer": partial(nn.LayerNorm, eps=0.1),
                                       "num_reg_tokens": 2, "use_fc_norm": False}),
    "eva, biases of keys": ("eva02_tiny_patch14_224", {"depth": 2, "attn_type": "rope"}),
    "eva, one layer": ("eva02_base_patch14_224", {"depth": 1, "qkv_fused": True}),
    "eva, layers apart": ("vit_base_patch16_rope_224", {**ROPED, "qkv_fused": False, "attn_type": "eva"}),
    "eva, bare": ("eva02_base_patch14_224", {"depth": 1, "use_abs_pos_emb": False, "scale_attn_inner": False}),
    "eva, mrope": ("eva02_base_patch14_224", {"depth": 2, "embed_dim": 128, "num_heads": 2, "rope_type": "mrope",
                                              "rope_mrope_section": (10, 11, 11)}),
    "layer norm with an activation": ("test_efficientnet", {"norm_layer": timm.layers.LayerNorm2d}),
    "convnext": ("test_convnext", {"ls_init_value": 0.1, "kernel_sizes": [7, 5, 5, 3], "conv_mlp": True}),
    "convnext, parts": ("test_convnext", {"act_layer": "silu", "stem_type": "overlap", "head_hidden_size": 32,
                                          "norm_layer": "rmsnorm2d"}),
    "cspnext, odd widths": ("cspnext_tiny", {"widen_factor": 0.17, "deepen_factor": 0.33}),
    "convit": ("convit_tiny", {"embed_dim": 16, "depth": 2, "local_up_to_layer": 1}),
    "crossvit": ("crossvit_tiny_240", {"mlp_ratio": [4, 4, 1], "num_heads": [2, 2], "embed_dim": [64, 128]}),
    "focalnet": ("focalnet_tiny_srf", {"focal_levels": [3, 3, 3, 3], "layerscale_value": 0.1}),
    "resnet": ("test_resnet", {**RESNET, "block_args": {"attn_layer": "eca"}}),
    "resnet, parts": ("resnet18", {"act_layer": "silu", "norm_layer": "groupnorm", "block_reduce_first": 1,
                                   "block": timm.models.resnet.Bottleneck, "layers": [1, 1, 1, 1]}),
    "resnetv2": ("resnetv2_18", {"act_layer": "silu", "layers": [1, 1, 1, 1]}),
    "vgg": ("vgg11", {"act_layer": nn.SiLU}),
    "vovnet": ("ese_vovnet19b_slim_dw", {"act_layer": "silu"}),
    "resnest": ("resnest14d", {"block_args": {"radix": 4, "avd": True, "avd_first": True}}),
    "efficientnet": ("test_efficientnet", {"act_layer": "relu", "bn_eps": 0.1, "se_layer": "eca"}),
    "efficientnet, parts": ("efficientnet_b0", {"act_layer": nn.Hardswish, "se_layer": "ese", "pad_type": "same",
                                                "norm_layer": partial(nn.BatchNorm2d, eps=0.1)}),
    "levit": ("levit_128s", {"stem_type": "s8", "act_layer": "silu"}),
    "pvt": ("pvt_v2_b0", {"depths": [1, 1, 1, 1], "mlp_ratios": [4, 4, 4, 4], "linear": True}),
    "nextvit": ("nextvit_small", {"head_dim": 16, "sr_ratios": [4, 2, 2, 1]}),
    "tiny_vit": ("tiny_vit_5m_224", {"depths": [1, 1, 2, 1], "num_heads": [2, 2, 4, 4], "window_sizes": [7, 7, 7, 7]}),
    "tnt": ("tnt_s_legacy_patch16_224", {"depth": 2, "inner_dim": 16, "legacy": False}),
    "swin v2 cr": ("swinv2_cr_tiny_224", {"depths": [1, 1, 1, 1], "strict_img_size": True}),
    "relpos": ("test_vit_relpos", {"rel_pos_type": "bias", "depth": 2}),
    "relpos, shared": ("test_vit_relpos", {"rel_pos_type": "bias", "depth": 2, "shared_rel_pos": True}),
    "relpos, class token": ("test_vit_relpos", {"rel_pos_type": "bias", "depth": 2, "class_token": True,
                                                "global_pool": "token"}),
    "deepseek": ("deepseek_vit_412m", {**TOWER, "patch_size": 14, "encoder_pool": "align", "out_features": 48}),
    "deepseek, apart": ("deepseek_vit_412m_align", {**TOWER, "patch_size": 14, "encoder_pool": "",
                                                     "out_features": 48}),
    "qwen3": ("qwen3_vit_88m", {**TOWER, "encoder_pool": "merge", "out_features": 48, "pos_embed_grid_size": 4}),
    "qwen3, apart": ("qwen3_vit_88m_merge", {**TOWER, "encoder_pool": "", "out_features": 48}),
    "gemma4": ("gemma4_vit_167m", {**TOWER, **GEMMA, "encoder_pool": "soft", "pooling_kernel_size": 2}),
    "gemma4, standardized": ("gemma4_vit_570m", {**TOWER, **GEMMA, "encoder_pool": "soft"}),
    "gemma4, apart": ("gemma4_vit_570m", {**TOWER, **GEMMA, "encoder_pool": ""}),
    "iformer": ("iformer_t", {"ffn_ratio": 2, "layer_scale_init_value": 0.1}),
    "gcvit": ("gcvit_xxtiny", {"mlp_ratio": 2.0, "qkv_bias": False, "layer_scale": 0.1}),
    "davit": ("davit_tiny", {"head_norm_first": True, "norm_eps": 0.1}),
    "davit, norm behind the pool": ("davit_tiny", {"norm_eps": 0.1}),
    "edgenext": ("edgenext_xx_small", {"head_norm_first": True}),
    "rdnet": ("rdnet_tiny", {"head_norm_first": True, "norm_eps": 0.1, "bottleneck_width_ratio": 1.3}),
    "rdnet, stem": ("rdnet_tiny", {"stem_type": "overlap", "conv_bias": False}),
    "rdnet, patches": ("rdnet_tiny", {"patch_size": 8}),
    "fasternet": ("fasternet_t0", {"feature_dim": 64}),
    "pvt, biases": ("pvt_v2_b0", {"qkv_bias": False}),
    "efficientformer v2": ("efficientformerv2_s0", {"distillation": False}),
    "repvit": ("repvit_m1", {"distillation": False}),
    "iformer, distilled": ("iformer_t", {"distillation": True}),
    "mobilenet v5": ("mobilenetv5_base", {"msfa_output_resolution": (8, 4), "stem_bias": False, "num_features": 64}),
    "mobilenet v5, apart": ("mobilenetv5_base", {"use_msfa": False, "num_features": 64, "stem_size": 32}),
    "mobilenet v5, apart, a map": ("mobilenetv5_base", {"use_msfa": False, "num_features": 64, "stem_size": 32,
                                                        "num_classes": 0, "global_pool": ""}),
    "eva, aligned": ("vit_base_patch16_rope_224", {**ROPED, "swiglu_mlp": True, "mlp_ratio": 2.7,
                                                   "swiglu_align_to": 8}),
    "eva, gated": ("vit_base_patch16_rope_224", {**ROPED, "swiglu_mlp": True}),
    "vit, no positions": ("test_vit", {"pos_embed": "none", "reg_tokens": 1, "global_pool": "avg"}),
    "davit, no biases": ("davit_tiny", {"depths": [1, 1, 1, 1], "qkv_bias": False}),
    "cait, no biases": ("cait_xxs24_224", {"depth": 2, "qkv_bias": False}),
    "coat, no biases": ("coat_tiny", {"qkv_bias": False}),
    "convit, biases": ("convit_tiny", {"depth": 3, "local_up_to_layer": 2, "qkv_bias": True}),
    "crossvit, no biases": ("crossvit_tiny_240", {"qkv_bias": False}),
    "nest, no biases": ("nest_tiny", {"qkv_bias": False}),
    "xcit, parts": ("xcit_nano_12_p16_224", {"depth": 2, "qkv_bias": False, "cls_attn_layers": 3}),
    "xcit, no positions": ("xcit_nano_12_p16_224", {"depth": 2, "use_pos_embed": False}),
    "volo, biases": ("volo_d1_224", {"qkv_bias": True}),
    "sam, parts": ("samvit_base_patch16_224", {"depth": 2, "embed_dim": 96, "num_heads": 3, "qkv_bias": False,
                                               "init_values": 0.1, "qk_norm": True}),
    "sam, no positions": ("samvit_base_patch16_224", {"depth": 2, "embed_dim": 96, "num_heads": 3,
                                                      "use_rel_pos": False, "use_abs_pos": False}),
    "swin v2, no biases": ("swinv2_tiny_window8_256", {"depths": [1, 1, 1, 1], "qkv_bias": False}),
    "vitamin, no biases": ("vitamin_small_224", {"depth": 2, "qkv_bias": False, "proj_bias": False}),
    "vitamin, tokens": ("vitamin_small_224", {"depth": 2, "class_token": True, "reg_tokens": 2, "no_embed_class": True,
                                              "global_pool": "token"}),
    "vitamin, parts": ("vitamin_small_224", {"depth": 2, "qk_norm": True, "init_values": 0.1, "pre_norm": True,
                                             "scale_attn_norm": True, "fc_norm": False}),
    "tnt, biases": ("tnt_s_legacy_patch16_224", {"depth": 2, "qkv_bias": True}),
    "relpos, norms": ("test_vit_relpos", {"depth": 2, "qk_norm": True}),
    "sequencer": ("sequencer2d_s", {"layers": [1, 1, 1, 1], "stem_norm": True}),
    "tiny_vit, parts": ("tiny_vit_5m_224", {"depths": [1, 1, 2, 1], "mlp_ratio": 2.0, "mbconv_expand_ratio": 3.0,
                                            "local_conv_size": 5}),
    "hiera": ("hiera_tiny_224", {"stages": [1, 1, 1, 1], "dim_mul": 1.5, "head_mul": 1.5, "num_heads": 2}),
    "hiera, units": ("hiera_tiny_224", {"stages": [1, 1, 1, 1], "mask_unit_attn": [True, False, True, False]}),
    "sam2": ("sam2_hiera_tiny", {"stages": [1, 2, 1, 1], "dim_mul": 1.5, "head_mul": 1.5, "num_heads": 2,
                                 "global_att_blocks": [2]}),
    "sam2, patches": ("sam2_hiera_tiny", {"stages": [1, 2, 1, 1], "patch_size": (2, 4)}),
    "sam2, kernels": ("sam2_hiera_tiny", {"stages": [1, 2, 1, 1], "patch_kernel": (5, 5), "patch_stride": (4, 4),
                                          "patch_padding": (2, 2)}),
    "sam2, one pool": ("sam2_hiera_tiny", {"stages": [1, 2, 1, 1], "q_pool": 1, "q_stride": (2, 2)}),
    "convnext, patches": ("test_convnext", {"patch_size": 2, "kernel_sizes": 5, "conv_bias": False}),
    "convnext, large patches": ("test_convnext", {"patch_size": 8}),
    "edgenext, no biases": ("edgenext_xx_small", {"conv_bias": False}),
    "rdnet, no biases": ("rdnet_tiny", {"conv_bias": False}),
    "metaformer, biases": ("poolformerv2_s12", {"mlp_bias": True}),
    "mobilenet v5, narrow": ("mobilenetv5_base", {"channel_multiplier": 0.125, "num_features": 64,
                                                  "msfa_output_resolution": 4}),
    "mobilenet v5, odd": ("mobilenetv5_base", {"channel_multiplier": 0.3, "num_features": 64, "use_msfa": False}),
    "efficientformer": ("efficientformer_l1", {"depths": [1, 1, 1, 2], "mlp_ratios": 2.5}),
    "swiftformer": ("swiftformer_xs", {"layers": [2, 1, 1, 2], "mlp_ratios": 2.5}),
    "densenet": ("densenet121", {"block_config": [1, 1, 1, 1], "bn_size": 2}),
    "densenet, tiered stem": ("densenet121", {"block_config": [1, 1, 1, 1], "stem_type": "deep_tiered"}),
    "fasternet, parts": ("fasternet_t0", {"patch_size": 2, "n_div": 2, "mlp_ratio": 1.5}),
    "mambaout": ("test_mambaout", {"kernel_size": 5, "ls_init_value": 0.1}),
    "convit, no positions": ("convit_tiny", {"depth": 3, "local_up_to_layer": 2, "use_pos_embed": False}),
    "cspnext": ("cspnext_tiny", {"depths": [1, 2, 1, 1], "channels": [32, 48, 64, 80], "expand_ratio": 0.25}),
    "cspnext, no gates": ("cspnext_tiny", {"channel_attention": False}),
    "twins": ("twins_svt_small", {"depths": [1, 1, 2, 1], "wss": [7, 7, 7, 7]}),
    "nfnet": ("test_nfnet", {"alpha": 0.3, "attn_gain": 1.5, "width_factor": 1.5, "ch_div": 16, "stem_chs": 48}),
    "nfnet, eca": ("test_nfnet", {"attn_layer": "eca", "stem_type": "deep_tiered", "std_conv_eps": 0.1}),
    "nfnet, gates": ("test_nfnet", {"attn_layer": "ese"}),
    "byobnet": ("test_byobnet", {"stem_chs": [16, 24, 40], "attn_layer": "eca", "downsample": ""}),
    "byobnet, wide": ("test_byobnet", {"width_factor": 2.0, "stem_type": "7x7", "attn_kwargs": {"rd_ratio": 0.5}}),
    "byobnet, stem": ("gernet_s", {"width_factor": 1.3, "stem_chs": [16, 24, 33], "stem_pool": "maxpool"}),
    "byobnet, one stem": ("test_byobnet", {"stem_chs": 16, "stem_pool": "avg2", "stem_type": "3x3"}),
    "byobnet, hidden layer": ("test_byobnet", {"head_type": "mlp", "head_hidden_size": 16}),
    "byobnet, norm behind the pool": ("test_byobnet", {"head_type": "mlp"}),
    "byobnet, norms beside averages": ("test_byobnet", {"norm_layer": "groupnorm1"}),
    "byobnet, epsilon beside averages": ("test_byobnet", {"norm_layer": partial(nn.BatchNorm2d, eps=0.1)}),
    "byoanet, attention": ("botnet26t_256", {"self_attn_layer": "lambda", "stem_pool": "", "stem_chs": 48}),
    "byoanet, heads": ("botnet26t_256", {"self_attn_kwargs": {"num_heads": 2, "qk_ratio": 0.5, "qkv_bias": True}}),
    "byoanet, scaled": ("botnet26t_256", {"self_attn_kwargs": {"dim_head": 8, "scale_pos_embed": True}}),
    "byoanet, halo": ("halonet26t", {"self_attn_kwargs": {"block_size": 4, "halo_size": 1, "num_heads": 4,
                                                          "scale_pos_embed": True}}),
    "byoanet, pooled": ("eca_halonext26ts", {"self_attn_kwargs": {"avg_down": True, "qkv_bias": True}}),
    "byoanet, lambda": ("lambda_resnet26t", {"self_attn_kwargs": {"r": 5, "dim_head": 8, "qkv_bias": True}}),
    "davit, norms of tokens": ("davit_tiny", {"depths": [1, 1, 1, 1], "norm_layer_cl": "rmsnorm"}),
    "davit, two norms": ("davit_tiny", {"depths": [1, 1, 1, 1], "norm_layer_cl": "rmsnorm", "norm_layer": "rmsnorm2d",
                                        "norm_eps": 0.1}),
    "gcvit, norms of tokens": ("gcvit_xxtiny", {"norm_layer_cl": "rmsnorm", "norm_eps": 0.1}),
    "gcvit, windows": ("gcvit_xxtiny", {"window_size": 7}),
    "gcvit, windows of stages": ("gcvit_xxtiny", {"window_size": (14, 7, 7, 7), "img_size": 224}),
    "efficientformer, norms of tokens": ("efficientformer_l1", {"norm_layer_cl": timm.layers.RmsNorm}),
    "efficientformer, epsilon of tokens": ("efficientformer_l1", {"norm_layer_cl": partial(nn.LayerNorm, eps=0.1)}),
    "edgenext, blocks that attend": ("edgenext_xx_small", {"global_block_counts": (1, 2, 0, 2),
                                                           "use_pos_emb": (True, True, False, True)}),
    "edgenext, widening": ("edgenext_xx_small", {"expand_ratio": 2.5, "heads": (2, 2, 4, 8)}),
    "edgenext, striding blocks": ("edgenext_xx_small", {"dims": (24, 48, 96, 192), "downsample_block": True}),
    "edgenext, striding layers": ("edgenext_small_rw", {"downsample_block": False}),
    "mambaout, stem": ("test_mambaout", {"stem_mid_norm": True}),
    "mambaout, norms behind": ("test_mambaout", {"downsample": "conv"}),
    "mambaout, norms before": ("mambaout_femto", {"depths": [1, 1, 1, 1], "downsample": "conv_nf",
                                                  "head_fn": "norm_mlp", "stem_mid_norm": False}),
    "mambaout, hidden norm": ("test_mambaout", {"head_fn": "default"}),
    "repvit, kernels": ("repvit_m0_9", {"kernel_size": 5, "mlp_ratio": 3}),
    "repvit, legacy": ("repvit_m1", {"kernel_size": 5}),
    "iformer, wide attention": ("iformer_t", {"attn_ratio": 2}),
    "shvit": ("shvit_s1", {"qk_dim": (8, 12, 32)}),
    "focalnet, mean": ("focalnet_tiny_srf", {"normalize_modulator": True, "layerscale_value": 10.0}),
    "focalnet, hidden layer": ("focalnet_tiny_srf", {"head_hidden_size": 16}),
    "nextvit, stem and strides": ("nextvit_small", {"stem_chs": (32, 16, 48), "strides": (2, 2, 1, 2)}),
    "nextvit, halves": ("nextvit_small", {"mix_block_ratio": 0.5}),
    "levit, widths": ("levit_128s", {"attn_ratio": 1.5, "mlp_ratio": 3.0}),
    "levit, activations": ("levit_conv_128s", {"act_layer": "relu", "attn_act_layer": "gelu"}),
    "levit, activation": ("levit_128s", {"attn_act_layer": "relu", "down_op": "subsample"}),
    "pit, heads": ("pit_ti_224", {"heads": (1, 2, 4), "depth": (1, 1, 1)}),
    "pit, widths": ("pit_ti_224", {"base_dims": (16, 24, 48), "depth": (1, 1, 1), "stem_type": "overlap"}),
    "visformer, no positions": ("visformer_tiny", {"use_pos_embed": False}),
    "mobilevit": ("mobilevit_xxs", {"width_factor": 2.0, "stem_chs": 24}),
    "gcvit, epsilon": ("gcvit_xxtiny", {"norm_eps": 0.1}),
    "gcvit, norm and epsilon": ("gcvit_xxtiny", {"norm_eps": 0.1, "norm_layer": "rmsnorm2d"}),
    "efficientformer v2, epsilon": ("efficientformerv2_s0", {"norm_eps": 0.1}),
    "inception v3, epsilon": ("inception_v3", {"norm_eps": 0.1}),
    "inception v4, epsilon": ("inception_v4", {"norm_eps": 0.1}),
    "inception resnet, epsilon": ("inception_resnet_v2", {"norm_eps": 0.1, "norm_layer": "groupnorm1"}),
    "lowformer, widening": ("lowformer_b0", {"expand_ratio": 6, "attn_mlp_ratio": 2}),
    "lowformer, stem": ("lowformer_b3", {"expand_ratio": 3, "stem_expand_ratio": 2}),
    "cpubone, widening": ("cpubone_b0_bfrobust", {"expand_ratio": 6, "attn_mlp_ratio": 2}),
    "efficientvit, widening": ("efficientvit_b0", {"expand_ratio": 6}),
    "coat": ("coat_tiny", {"num_heads": 4, "crpe_window": {3: 1, 5: 3}}),
    "coat, parallel": ("coat_mini", {"crpe_window": {3: 8}}),
    "volo, patches": ("volo_d1_224", {"patch_size": 16}),
    "visformer, patches": ("visformer_tiny", {"patch_size": 8}),
    "hiera, patches": ("hiera_tiny_224", {"stages": [1, 1, 1, 1], "patch_kernel": (5, 5), "patch_stride": (7, 7),
                                          "patch_padding": (2, 2)}),
    "hiera, two tables": ("hiera_tiny_224", {"stages": [1, 1, 1, 1], "abs_win_pos_embed": True}),
    "hiera, two tables of any size": ("hiera_tiny_224", {"stages": [1, 1, 1, 1], "abs_win_pos_embed": True,
                                                         "global_pos_size": (7, 5), "q_stride": (2, 2)}),
    "hiera, one table": ("hiera_small_abswin_256", {"stages": [1, 1, 1, 1], "abs_win_pos_embed": False}),
    "hiera, small units": ("hiera_tiny_224", {"stages": [1, 1, 1, 1], "mask_unit_size": (4, 4),
                                              "abs_win_pos_embed": True}),
    "hiera, smallest units": ("hiera_tiny_224", {"stages": [1, 1, 1, 1], "mask_unit_size": (2, 2),
                                                 "mask_unit_attn": [True, False, False, False]}),
    "hiera, large units": ("hiera_tiny_224", {"stages": [1, 1, 1, 1], "img_size": 128, "mask_unit_size": (16, 32),
                                              "abs_win_pos_embed": True}),
    "hiera, large units of two pools": ("hiera_tiny_224", {"stages": [1, 1, 1], "q_pool": 1, "img_size": 96,
                                                           "mask_unit_attn": [True, True, False],
                                                           "mask_unit_size": (12, 4)}),
    "hiera, small units of two sides": ("hiera_tiny_224", {"stages": [1, 1, 1, 1], "mask_unit_size": (2, 8),
                                                           "abs_win_pos_embed": True}),
    "hiera, two pools": ("hiera_tiny_224", {"stages": [1, 2, 1, 1], "q_pool": 2}),
    "hiera, no pool": ("hiera_tiny_224", {"stages": [1, 1, 1, 1], "q_pool": 0, "mask_unit_attn": [True] * 4}),
    "sam, norm": ("samvit_base_patch16_224", {"depth": 2, "embed_dim": 96, "num_heads": 3, "pre_norm": True}),
    "hybrid, norm": ("vit_tiny_r_s16_p8_224", {"depth": 2, "pre_norm": True}),
    "hybrid, patches of a stem's map": ("vit_tiny_r_s16_p8_224", {"depth": 2, "patch_size": 4}),
    "hybrid, patches of a network's map": ("vit_small_resnet50d_s16_224", {"depth": 2, "patch_size": 2}),
    "hybrid, each position": ("vit_tiny_r_s16_p8_224", {"depth": 2, "patch_size": 1, "img_size": 64}),
    "rexnet": ("rexnet_100", {"initial_chs": 24, "final_chs": 120, "se_ratio": 0.25, "dw_act_layer": "silu"}),
    "rexnet, deep": ("rexnet_100", {"depth_mult": 1.5}),
    "nfnet, gains": ("test_nfnet", {"gamma_in_act": True, "skipinit": True, "same_padding": True}),
    "nfnet, gains in kernels": ("dm_nfnet_f0", {"depths": [1, 1, 1, 1], "gamma_in_act": False, "skipinit": False,
                                                "same_padding": False}),
    "byobnet, pool by attention": ("test_byobnet", {"head_type": "attn_abs", "img_size": 160}),
    "byobnet, turning pool": ("test_byobnet", {"head_type": "attn_rot", "img_size": 160}),
    "byoanet, turning pool": ("botnet26t_256", {"head_type": "attn_rot", "num_classes": 3}),
    "edgenext, kernels": ("edgenext_xx_small", {"kernel_sizes": [5, 3, 7, 5], "d2_scales": [2, 3, 3, 4],
                                                "stem_type": "overlap"}),
    "davit, windows": ("davit_tiny", {"depths": [1, 1, 1, 1], "attn_types": ["spatial"]}),
    "davit, channels first": ("davit_tiny", {"depths": [1, 1, 1, 1], "attn_types": ["channel", "spatial"]}),
    "davit, activations": ("davit_tiny", {"depths": [1, 1, 1, 1], "cpe_act": True, "channel_attn_v2": True}),
    "davit, named": ("davit_tiny", {"depths": [1, 1, 1, 1], "named_blocks": True}),
    "davit, channels apart": ("davit_base_fl", {"depths": [1, 1, 1, 1], "named_blocks": False, "num_classes": 3,
                                                "channel_attn_v2": False, "embed_dims": [32, 32, 64, 64],
                                                "num_heads": [2, 2, 2, 2]}),
    "fastvit": ("fastvit_t8", {"repmixer_kernel_size": 5}),
    "fastvit, small kernels": ("fastvit_t8", {"down_patch_size": 3}),
    "fastvit, kernels and strides": ("fastvit_t8", {"down_patch_size": 5, "down_stride": 3}),
    "fastvit, one size": ("fastvit_t8", {"layers": [1, 1, 1, 1], "down_stride": 1}),
    "efficientformer, halved early": ("efficientformer_l1", {"embed_dims": (48, 48, 224, 448),
                                                             "downsamples": (True, False, True, True)}),
    "efficientformer v2, halved early": ("efficientformerv2_s0", {"embed_dims": (32, 32, 96, 176),
                                                                  "downsamples": (True, False, True, True)}),
    "efficientformer v2, halved less": ("efficientformerv2_s0", {"embed_dims": (32, 32, 96, 176),
                                                                 "downsamples": (False, False, True, True)}),
    "swiftformer, halved once more": ("swiftformer_xs", {"downsamples": [True, True, True, True]}),
    "swiftformer, halved less": ("swiftformer_xs", {"embed_dims": [48, 48, 112, 220],
                                                    "downsamples": [False, False, True, True]}),
    "swiftformer, kernels and strides": ("swiftformer_xs", {"down_patch_size": 5, "down_stride": 3, "down_pad": 2}),
    "fastvit, halved once more": ("fastvit_t8", {"downsamples": (True, False, True, True), "cls_ratio": 1.0}),
    "beit, gated": ("beit_base_patch16_224", {"depth": 2, "embed_dim": 96, "num_heads": 3, "swiglu_mlp": True}),
    "beit, no biases": ("beit_base_patch16_224", {"depth": 2, "embed_dim": 96, "num_heads": 3, "qkv_bias": False}),
    "naflex, norms": ("naflexvit_base_patch16_gap", {**ROPED, "norm_layer": "rmsnorm", "qk_norm": True,
                                                     "pre_norm": True, "embed_norm_layer": "layernorm",
                                                     "scale_mlp_norm": True, "scale_attn_inner_norm": True,
                                                     "proj_bias": False}),
    "naflex, turned": ("naflexvit_base_patch16_gap", {**ROPED, "norm_layer": "rmsnorm", "rope_type": "axial",
                                                      "scale_mlp_norm": True, "scale_attn_inner_norm": True}),
    "naflex, pool": ("naflexvit_base_patch16_gap", {**ROPED, "global_pool": "map", "attn_pool_num_heads": 6,
                                                    "attn_pool_mlp_ratio": 2.5, "norm_layer": "rmsnorm"}),
    "naflex, corners": ("naflexvit_base_patch16_gap", {**ROPED, "img_size": 160, "pos_embed_align_corners": True,
                                                       "pos_embed_interp_mode": "bilinear"}),
    "tnt, finer": ("tnt_s_legacy_patch16_224", {"depth": 2, "first_stride": 2}),
    "tnt, coarser": ("tnt_s_patch16_224", {"depth": 2, "first_stride": 8}),
    "volo, one class block": ("volo_d1_224", {"post_layers": ["ca"]}),
    "volo, three class blocks": ("volo_d1_224", {"post_layers": ["ca", "ca", "ca"]}),
    "volo, one classifier": ("volo_d1_224", {"use_aux_head": False}),
    "convnext, both scales": ("test_convnext", {"use_grn": True}),
    "convnext v2, scaled": ("convnextv2_atto", {"ls_init_value": 0.1}),
    "regnet, pooled": ("regnetx_002", {"downsample": "avg"}),
    "regnet, no shortcut": ("regnetx_002", {"downsample": ""}),
    "mobilenet v3, norm": ("mobilenetv3_small_050", {"head_norm": True}),
    "eva, gated and normed": ("eva02_tiny_patch14_224", {"depth": 2, "scale_mlp": True}),
    "eva, gated, no norm": ("eva02_base_patch14_224", {"depth": 1, "embed_dim": 96, "num_heads": 3,
                                                       "scale_mlp": False}),
    "dinov3, rounded": ("vit_small_plus_patch16_dinov3", {"depth": 1, "embed_dim": 96, "num_heads": 3,
                                                          "mlp_ratio": 3.3}),
    "dinov3, not rounded": ("vit_small_plus_patch16_dinov3", {"depth": 1, "embed_dim": 96, "num_heads": 3,
                                                              "mlp_ratio": 3.3, "swiglu_align_to": 0}),
    "eva, two norms": ("eva02_tiny_patch14_224", {"depth": 2, "use_post_transformer_norm": True}),
    "eva, norm behind the pool": ("eva02_tiny_patch14_224", {"depth": 2, "use_post_transformer_norm": False,
                                                             "use_fc_norm": True}),
    "eva, no norm": ("eva02_tiny_patch14_224", {"depth": 2, "use_post_transformer_norm": False,
                                                "use_fc_norm": False}),
    "eva, norm and token": ("eva02_tiny_patch14_224", {"depth": 2, "global_pool": "token", "use_fc_norm": True}),
    "senet, deep stem": ("legacy_seresnet18", {"input_3x3": True}),
    "senet, wide stem": ("legacy_seresnet18", {"inplanes": 96}),
    "byobnet, shortcuts are smoothed": ("gernet_s", {"aa_layer": "avg"}),
    "byoanet, shortcuts are smoothed": ("botnet26t_256", {"aa_layer": "avg"}),
    "crossvit, crops": ("crossvit_tiny_240", {"crop_scale": True, "num_heads": (2, 4), "mlp_ratio": (3, 2, 1)}),
    "crossvit, patches": ("crossvit_tiny_240", {"patch_size": (8, 16)}),
    "rdnet, transitions": ("rdnet_tiny", {"transition_compression_ratio": 0.3}),
    "densenet, smoothed": ("densenet121", {"aa_layer": timm.layers.BlurPool2d, "aa_stem_only": False,
                                           "block_config": (1, 1, 1, 1)}),
    "lowformer, depthwise": ("lowformer_b0", {"fused_conv": False, "expand_groups": 2, "depth_list": (1, 2, 2, 2, 2)}),
    "lowformer, groups": ("lowformer_b0", {"expand_groups": 2}),
    "cpubone, depthwise": ("cpubone_nano", {"fused_conv": False, "expand_groups": 4}),
    "cpubone, halving": ("cpubone_nano", {"fused_downsample": False, "expand_groups": 1}),
    "cpubone, kernels": ("cpubone_nano", {"small_kernels": False, "attn_upsample": "transpose"}),
    "cpubone, depthwise, transposed": ("cpubone_nano", {"fused_conv": False, "attn_upsample": "transpose"}),
    "eva, norm of mlps": ("eva02_base_patch14_224", {"depth": 1, "swiglu_mlp": False, "scale_mlp": True}),
    "eva, no norm of gated mlps": ("eva02_base_patch14_224", {"depth": 1, "scale_mlp": False}),
    "eva, norm of gated mlps": ("eva02_tiny_patch14_224", {"depth": 1, "scale_mlp": True}),
    "eva, gated mlps in one": ("vit_small_plus_patch16_dinov3", {"depth": 1, "swiglu_align_to": 0}),
    "beit, norm of mlps": ("beit_base_patch16_224", {"depth": 1, "embed_dim": 96, "num_heads": 3, "scale_mlp": True}),
    "beit, norm of gated mlps": ("beit_base_patch16_224", {"depth": 1, "embed_dim": 96, "num_heads": 3,
                                                           "scale_mlp": True, "swiglu_mlp": True}),
    "fasternet, patches": ("fasternet_t0", {"patch_norm": False, "layer_scale_init_value": 0.1, "merge_size": 1}),
    "vgg, wide layers": ("vgg11", {"mlp_ratio": 0.125}),
    "efficientvim, hidden states": ("efficientvim_m1", {"ssd_expand": 1.5}),
    "mixer, norm of patches": ("mixer_s16_224", {"stem_norm": True}),
    "sequencer, layers": ("sequencer2d_s", {"num_rnn_layers": 2, "layers": (1, 1, 1, 1)}),
    "csatv2, scaled": ("csatv2", {"ls_init_value": 0.1}),
    "efficientvit, keys": ("efficientvit_m0", {"key_dim": (8, 16, 24)}),
    "metaformer": ("caformer_s18", {"mlp_act": nn.GELU, "res_scale_init_values": (1.0, None, None, 0.5)}),
    "rexnet, narrow": ("rexnet_100", {"width_mult": 0.5}),
    "hgnet, affines": ("hgnet_tiny", {"use_lab": True}),
    "rexnet, a class": ("rexnet_100", {"dw_act_layer": nn.SiLU}),
    "resnetv2, wide inside": ("resnetv2_50", {"bottle_ratio": 0.5, "layers": (1, 1, 1, 1)}),
    "resnetv2, narrow inside": ("resnetv2_18", {"bottle_ratio": 0.5, "layers": (1, 1, 1, 1)}),
    "resnetv2, bottlenecks": ("resnetv2_18", {"basic": False, "layers": (1, 1, 1, 1)}),
    "tresnet, second version": ("tresnet_l", {"v2": True, "width_factor": 1.2}),
    "levit, a class": ("levit_128s", {"attn_act_layer": nn.GELU}),
    "nfnet, reduced": ("test_nfnet", {"attn_layer": "se", "attn_kwargs": {"rd_ratio": 0.5}}),
}  # fmt: skip


@pytest.mark.parametrize("name, options", CASES.values(), ids=CASES)
def test_the_fields_words_build_the_same(name, options):
    peer, ours = (model.double() for model in pair(name, **options))
    x = image(ours).double()
    with torch.no_grad():
        want, got = peer(x), ours(x)
    assert got.shape == want.shape
    assert (got - want).abs().max() <= TOLERANCE * want.abs().max().clamp(min=1)


@pytest.mark.parametrize("name, options", CASES.values(), ids=CASES)
def test_every_word_counts(name, options):
    """Without its options a name is another network, or the comparison above would prove nothing."""
    _, ours = pair(name, **options)
    _, plain = pair(name)
    shapes, others = ({key: value.shape for key, value in each.state_dict().items()} for each in (ours, plain))
    x = image(ours)
    with torch.no_grad():
        assert shapes != others or not torch.allclose(ours(x), plain(x), atol=1e-3)


LEVELS = [{"num_levels": 2, "embed_dims": (24, 48), "num_heads": (3, 6), "depths": (1, 2)},
          {"num_levels": 4, "embed_dims": 24, "num_heads": 3, "depths": 1}]  # fmt: skip
"""Of NesT, whose names in the field settle them all."""


@pytest.mark.parametrize("options", LEVELS)
def test_levels_of_nest(options):
    peer = timm.models.nest.Nest(**options).double().eval()
    perturb(peer)
    ours = imgzoo.create_model("nest_tiny", **options).double().eval()
    ours.load_state_dict(peer.state_dict())
    x = image(ours).double()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), peer(x), rtol=0, atol=TOLERANCE)


PADDED = {
    "eva": ("eva02_tiny_patch14_224", {"depth": 2, "dynamic_img_size": True}),
    "naflex": ("naflexvit_base_patch16_gap", ROPED),
    "naflex, norms": ("naflexvit_base_patch16_gap", {**ROPED, "embed_norm_layer": "layernorm", "pre_norm": True}),
    "deepseek": ("deepseek_vit_412m", {**TOWER, "patch_size": 14}),
    "deepseek, apart": ("deepseek_vit_412m_align", {**TOWER, "patch_size": 14, "encoder_pool": "", "out_features": 48}),
    "vitamin": ("vitamin_small_224", {"depth": 2, "dynamic_img_size": True}),
}


@pytest.mark.parametrize("name", ["convnext_atto", "cs3darknet_s", "cspresnet50", "cspnext_s", "densenet121",
                                  "efficientnet_b0", "lcnetv2_base", "nextvit_small"])  # fmt: skip
@pytest.mark.parametrize("norm", [timm.layers.LayerNorm2d, partial(timm.layers.LayerNorm2d, eps=1e-3)])
def test_epsilon_of_a_layer_norm(name, norm):
    with torch.device("meta"):
        models = [library.create_model(name, norm_layer=norm) for library in (timm, imgzoo)]
    theirs, ours = ({module.eps for module in model.modules() if isinstance(module, nn.LayerNorm)} for model in models)
    assert theirs == ours


@pytest.mark.parametrize("name, options", PADDED.values(), ids=PADDED)
def test_images_are_padded_to_whole_patches(name, options):
    peer, ours = (model.double() for model in pair(name, **options, dynamic_img_pad=True))
    for size in ((100, 131), (230, 219)):
        x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).double()
        with torch.no_grad():
            want, got = peer(x), ours(x)
        assert (got - want).abs().max() <= TOLERANCE * want.abs().max().clamp(min=1)


@pytest.mark.parametrize("options", NAFLEX.values(), ids=NAFLEX)
def test_blocks_of_naflexvit_on_patches(options):
    peer, ours = (model.double() for model in pair("naflexvit_base_patch16_gap", **{**ROPED, **options}))
    kept = {key: each for key, each in options.items() if key in ("depth", "class_token", "global_pool", "rope_type")}
    plain = imgzoo.create_model("naflexvit_base_patch16_gap", **{**ROPED, **kept}).eval().double()
    x = torch.randn(1, 3, 64, 48, generator=torch.Generator().manual_seed(1)).double()
    patches = torch.randn(2, 12, 16, 16, 3, generator=torch.Generator().manual_seed(0)).double()
    valid = torch.arange(12) < torch.tensor([[12], [8]])
    coordinates = torch.cartesian_prod(torch.arange(3), torch.arange(4)) * valid[..., None]
    patches[~valid] = 0
    with torch.no_grad():
        torch.testing.assert_close(ours(x), peer(x), rtol=0, atol=1e-8)
        if list(plain.state_dict()) == list(ours.state_dict()) and "embed_proj_type" not in options:
            plain.load_state_dict(ours.state_dict())
            assert (plain(x) - ours(x)).abs().max() > 1e-4
        got = ours((patches.flatten(2), coordinates, valid))
        if "embed_proj_type" in options:  # the peer's convolution takes images alone
            whole = patches[0].unflatten(0, (3, 4)).permute(4, 0, 2, 1, 3).reshape(1, 3, 48, 64)
            return torch.testing.assert_close(got[:1], peer(whole), rtol=0, atol=1e-8)
        torch.testing.assert_close(got, peer(patches.flatten(2), patch_coord=coordinates, patch_valid=valid),
                                   rtol=0, atol=1e-8)  # fmt: skip
        levels = [model.forward_intermediates({"patches": patches.flatten(2), "patch_coord": coordinates,
                                               "patch_valid": valid}, output_fmt="NLC", intermediates_only=True)
                  for model in (ours, peer)]  # fmt: skip
    for level, wanted in zip(levels[0], levels[1], strict=True):
        torch.testing.assert_close(level[valid], wanted[valid], rtol=0, atol=1e-7)


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (20, 12)], ids=str)
def test_patches_of_other_sizes(size):
    options = {**ROPED, "enable_patch_interpolator": True, "use_key_only_attn_mask": True}
    peer, ours = (model.double() for model in pair("naflexvit_base_patch16_gap", **options))
    patches = torch.randn(2, 12, *size, 3, generator=torch.Generator().manual_seed(0)).double()
    valid = torch.arange(12) < torch.tensor([[12], [8]])
    coordinates = torch.cartesian_prod(torch.arange(3), torch.arange(4)) * valid[..., None]
    with torch.no_grad():
        want = peer(patches, patch_coord=coordinates, patch_valid=valid)
        got = ours((patches, coordinates, valid))
    assert (got - want).abs().max() <= TOLERANCE * want.abs().max().clamp(min=1)


def test_positions_of_patches_at_points_of_the_table():
    peer, ours = (model.double() for model in pair("naflexvit_base_patch16_gap", **ROPED,
                                                   pos_embed_use_grid_sample=True))  # fmt: skip
    patches = torch.randn(1, 12, 768, generator=torch.Generator().manual_seed(1)).double()
    coordinates, valid = torch.cartesian_prod(torch.arange(3), torch.arange(4))[None], torch.ones(1, 12).bool()
    with torch.no_grad():
        got = ours((patches, coordinates, valid))
        want = peer(patches, patch_coord=coordinates, patch_valid=valid)
        torch.testing.assert_close(got, want, rtol=0, atol=TOLERANCE)
        ours.embeds.point_sample = False
        assert (ours((patches, coordinates, valid)) - want).abs().max() > 1e-3


@pytest.mark.parametrize("square", [False, True])
def test_factorized_tables_are_stretched_without_corners(square):
    options = {**ROPED, "pos_embed_align_corners": True, "pos_embed_ar_preserving": square}
    peer, ours = (model.double() for model in pair("naflexvit_base_patch16_parfac_gap", **options))
    x = torch.randn(1, 3, 224, 320, generator=torch.Generator().manual_seed(0)).double()
    patches = torch.randn(2, 12, 768, generator=torch.Generator().manual_seed(1)).double()
    valid = torch.arange(12) < torch.tensor([[12], [8]])
    coordinates = torch.cartesian_prod(torch.arange(3), torch.arange(4)) * valid[..., None]
    with torch.no_grad():
        torch.testing.assert_close(ours(x), peer(x), rtol=0, atol=1e-8)
        want = peer(patches, patch_coord=coordinates, patch_valid=valid)
        torch.testing.assert_close(ours((patches, coordinates, valid)), want, rtol=0, atol=1e-8)
