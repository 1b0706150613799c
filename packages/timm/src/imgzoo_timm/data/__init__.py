"""The field's data: transforms of Pillow images, mixing, datasets and loaders."""

from imgzoo_timm._door import furnish

NAMES = """
constants           .data._constants   DEFAULT_CROP_PCT DEFAULT_CROP_MODE IMAGENET_DEFAULT_MEAN IMAGENET_DEFAULT_STD
constants           .data._constants   IMAGENET_INCEPTION_MEAN IMAGENET_INCEPTION_STD IMAGENET_DPN_MEAN IMAGENET_DPN_STD
constants           .data._constants   OPENAI_CLIP_MEAN OPENAI_CLIP_STD
config              .data._config      resolve_data_config resolve_model_data_config
model_config        .data._config      resolve_input_data_config
readers             .data._readers     create_reader get_img_extensions is_img_extension
readers.reader_factory .data._readers  create_reader
readers.img_extensions .data._readers  get_img_extensions is_img_extension
readers.reader      .data._readers     Reader
readers.class_map   .data._readers     load_class_map
scheduled_sampler   .data._scheduled   ScheduledBatchSampler ScheduledTransformDataset
target_transforms   .data._padding     MultiLabelTarget
transforms          .data._padding     RandomCropOrPad RandomPad center_crop_or_pad crop_or_pad
transforms          .data._transforms  ToNumpy ToTensor MaybeToTensor MaybePILToTensor RandomResizedCropAndInterpolation
transforms          .data._transforms  ResizeKeepRatio CenterCropOrPad TrimBorder str_to_interp_mode str_to_pil_interp
transforms          .data._transforms  interp_mode_to_str _pil_interp
transforms_factory  .data._factory     create_transform transforms_imagenet_train transforms_imagenet_eval
transforms_factory  .data._factory     transforms_noaug_train
auto_augment        .data._policies    rand_augment_transform auto_augment_transform augment_and_mix_transform
auto_augment        .data._policies    rand_augment_ops auto_augment_policy RandAugment AutoAugment
auto_augment        .data._policies    AugMixAugment AugmentOp
random_erasing      .data._transforms  RandomErasing
mixup               .data._mixup       Mixup FastCollateMixup mixup_target one_hot rand_bbox rand_bbox_minmax
mixup               .data._mixup       cutmix_bbox_and_lam
dataset             .data._dataset     ImageDataset IterableImageDataset AugMixDataset
dataset_factory     .data._dataset     create_dataset
loader              .data._dataset     create_loader fast_collate PrefetchLoader
loader              .data._dataset     MultiEpochsDataLoader
distributed_sampler .data._dataset     OrderedDistributedSampler RepeatAugSampler
real_labels         .data._dataset     RealLabelsImagenet
imagenet_info       .data._info        ImageNetInfo
imagenet_info       imgzoo_data.info   infer_imagenet_subset
dataset_info        .data._info        DatasetInfo CustomDatasetInfo DatasetInfoLabelMapper LabelMappingCoverage
naflex_transforms   .data._sequence    Patchify patchify_image ResizeToSequence ResizeKeepRatioToSequence
naflex_transforms   .data._sequence    CenterCropToSequence RandomCropToSequence RandomResizedCropToSequence
naflex_transforms   .data._sequence    get_image_size_for_seq
naflex_random_erasing .data._sequence_mixing PatchRandomErasing
naflex_mixup        .data._sequence_mixing NaFlexMixup mix_batch_variable_size pairwise_mixup_target
naflex_dataset      .data._sequence_loader NaFlexMapDatasetWrapper NaFlexCollator calculate_naflex_batch_size
naflex_loader       .data._sequence_loader create_naflex_loader NaFlexPrefetchLoader
"""

SOURCES = "imgzoo.create_dataset reads every source (`imgzoo list --kind dataset`), streams among them"
INSTEAD = {
    "reader*": SOURCES,
    "*_img_extensions": "imgzoo's sources read every image: a csv source says which files",
    "tf_preprocessing": "transforms of imgzoo resample as Pillow does",
}
"""What is not here on purpose, and imgzoo's way."""

__getattr__, __dir__ = furnish(__name__, NAMES, "imgzoo's data is in imgzoo_data (`imgzoo_data.create_transform`, ...)",
                               instead=INSTEAD)  # fmt: skip
