"""The field's data: transforms of Pillow images, mixing, datasets and loaders."""

from imgzoo_timm._door import furnish

NAMES = """
constants           .data._constants   DEFAULT_CROP_PCT DEFAULT_CROP_MODE IMAGENET_DEFAULT_MEAN IMAGENET_DEFAULT_STD
constants           .data._constants   IMAGENET_INCEPTION_MEAN IMAGENET_INCEPTION_STD IMAGENET_DPN_MEAN IMAGENET_DPN_STD
constants           .data._constants   OPENAI_CLIP_MEAN OPENAI_CLIP_STD
config              .data._config      resolve_data_config resolve_model_data_config
model_config        .data._config      resolve_input_data_config
readers             .data._readers     create_reader get_img_extensions is_img_extension
readers.reader      .data._readers     Reader
readers.class_map   .data._readers     load_class_map
scheduled_sampler   .data._scheduled   ScheduledBatchSampler ScheduledTransformDataset
target_transforms   .data._padding     MultiLabelTarget
transforms          .data._padding     RandomCropOrPad center_crop_or_pad crop_or_pad
transforms          .data._transforms  ToNumpy ToTensor MaybeToTensor MaybePILToTensor RandomResizedCropAndInterpolation
transforms          .data._transforms  ResizeKeepRatio CenterCropOrPad TrimBorder str_to_interp_mode str_to_pil_interp
transforms          .data._transforms  interp_mode_to_str _pil_interp
transforms_factory  .data._transforms  create_transform transforms_imagenet_train transforms_imagenet_eval
transforms_factory  .data._transforms  transforms_noaug_train
auto_augment        .data._transforms  rand_augment_transform auto_augment_transform augment_and_mix_transform
random_erasing      .data._transforms  RandomErasing
mixup               .data._mixup       Mixup FastCollateMixup mixup_target one_hot rand_bbox rand_bbox_minmax
mixup               .data._mixup       cutmix_bbox_and_lam
dataset             .data._dataset     ImageDataset AugMixDataset
dataset_factory     .data._dataset     create_dataset
loader              .data._dataset     create_loader fast_collate PrefetchLoader
distributed_sampler .data._dataset     OrderedDistributedSampler RepeatAugSampler
real_labels         .data._dataset     RealLabelsImagenet
imagenet_info       .data._dataset     ImageNetInfo
imagenet_info       imgzoo_data.info   infer_imagenet_subset
dataset_info        .data._dataset     CustomDatasetInfo
"""

PATCHES = "patches of any shape are made by imgzoo.create_transform(sequence=...), and loaded by imgzoo.create_loader"
POLICIES = "policies of imgzoo are made by their strings: rand_augment_transform, auto_augment_transform"
SOURCES = "imgzoo.create_dataset reads every source (`imgzoo list --kind dataset`), streams among them"
INSTEAD = {
    "*naflex*": PATCHES, "*patchif*": PATCHES, "*sequence": PATCHES, "mix_batch_variable_size": PATCHES,
    "pairwise_mixup_target": PATCHES, "randaugment": POLICIES, "autoaugment": POLICIES, "rand_augment_*": POLICIES,
    "auto_augment_*": POLICIES, "augmentop": POLICIES, "augmixaugment": POLICIES, "iterableimagedataset": SOURCES,
    "reader*": SOURCES, "*_img_extensions": "imgzoo's sources read every image: a csv source says which files",
    "datasetinfo*": "names of classes are imgzoo_data.info.DatasetInfo", "labelmapping*": "see imgzoo_data.info",
    "tf_preprocessing": "transforms of imgzoo resample as Pillow does",
}  # fmt: skip
"""What is not here on purpose, and imgzoo's way."""

__getattr__, __dir__ = furnish(__name__, NAMES, "imgzoo's data is in imgzoo_data (`imgzoo_data.create_transform`, ...)",
                               instead=INSTEAD)  # fmt: skip
