"""The field's helpers of training scripts."""

from imgzoo_timm._door import furnish

NAMES = """
metrics          .utils._training  AverageMeter accuracy
log              .utils._training  FormatterNoInfo setup_default_logging
random           .utils._training  random_seed
summary          .utils._training  get_outdir update_summary trim_summary
decay_batch      .utils._training  decay_batch_step check_batch_size_retry
jit              .utils._training  set_jit_fuser set_jit_legacy
distributed      .utils._training  reduce_tensor distribute_bn world_info_from_env is_distributed_env is_primary
distributed      .utils._training  is_global_primary is_local_primary init_distributed_device
distributed      .utils._training  init_distributed_device_so
checkpoint_saver .utils._training  CheckpointSaver
checkpoint_saver .utils._reading   load_checkpoint_metadata
misc             .utils._misc      natural_key add_bool_arg ParseKwargs
model            .utils._model     unwrap_model get_state_dict freeze unfreeze reparameterize_model
model            .utils._activations ActivationStatsHook extract_spp_stats avg_sq_ch_mean avg_ch_var
model            .utils._activations avg_ch_var_residual
model            .layers._frozen   FrozenBatchNorm2d freeze_batch_norm_2d unfreeze_batch_norm_2d
model            .layers._norm     FrozenBatchNormAct2d
model_ema        .utils._model     ModelEma ModelEmaV2 ModelEmaV3
cuda             .utils._model     NativeScaler ApexScaler
clip_grad        .utils._model     dispatch_clip_grad
agc              .utils._model     adaptive_clip_grad
attention_extract .utils._attention AttentionExtract
"""

__getattr__, __dir__ = furnish(__name__, NAMES, "imgzoo trains by imgzoo_train (`imgzoo train --help`)",
                               instead={"onnx": "imgzoo export writes ONNX (`imgzoo export --help`)"})  # fmt: skip
