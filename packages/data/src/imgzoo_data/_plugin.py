"""What imgzoo-data brings, as data. Imports neither torch nor numpy."""

from __future__ import annotations

from imgzoo.plugin import CommandSpec, ComponentSpec, hookimpl

IMGZOO_API = (1, 0)

_DATASETS = {
    "folder": ("folder:FolderSource", "images in folders named after their classes"),
    "tar": ("tar:TarSource", "images in one tar, a folder of tars, or tars in a tar; read in place"),
    "zip": ("zip:ZipSource", "images in one zip, or a folder of zips; read in place"),
    "csv": ("listing:csv_source", "a CSV of image paths and targets, single or multi-label"),
    "parquet": ("listing:ParquetSource", "parquet with images and targets (extra: parquet)"),
    "hf": ("hf:hf_source", "Hugging Face datasets, random access or streaming (extra: hf)"),
    "tfds": ("tfds:TfdsSource", "TensorFlow Datasets in array_record format (extra: tfds)"),
    "wds": ("wds:wds_source", "webdataset shards, random access or streaming"),
    "torchvision": (
        "torchvision_sets:TorchvisionSource",
        "cifar, mnist family, inat, places365, imagenet, image folders",
    ),
    "digits": ("digits:DigitsSource", "1,797 handwritten digits of 8x8 pixels, embedded"),
}

_TRANSFORMS = {
    "rrc": ("crops:RandomResizedCrop", "random area and aspect, resized to the input size", "1409.4842"),
    "rkr": (
        "crops:RandomKeepRatio",
        "resized keeping the ratio, then a center (or random) crop, with mild random scale",
        "",
    ),
    "eval": ("crops:EvalCrop", "resized by the crop share, then a center crop; also squash and border", ""),
    "hflip": ("flip:HorizontalFlip", "left-right flip with probability p", ""),
    "seq": ("sequences:SequenceCrop", "resized to the largest grid of patches within a length (NaFlex)", "2502.14786"),
    "jitter": ("color:ColorJitter", "brightness, contrast, saturation and hue by random factors", ""),
    "gray": ("color:Grayscale", "gray with probability p", ""),
    "blur": ("color:GaussianBlur", "Gaussian blur with probability p", ""),
    "randaugment": ("policies:RandAugment", "RandAugment by its string, rand-m9-mstd0.5-inc1", "1909.13719"),
    "autoaugment": ("policies:AutoAugment", "AutoAugment original, v0, and 3-augment (3a)", "1805.09501"),
    "augmix": ("policies:AugMix", "AugMix by its string, augmix-m3-w3", "1912.02781"),
    "vflip": ("flip:VerticalFlip", "up-down flip with probability p", ""),
}


@hookimpl
def imgzoo_datasets() -> list[ComponentSpec]:
    return [
        ComponentSpec(name, f"imgzoo_data.sources.{target}", help=text) for name, (target, text) in _DATASETS.items()
    ]


@hookimpl
def imgzoo_transforms() -> list[ComponentSpec]:
    return [
        ComponentSpec(name, f"imgzoo_data.transforms.{target}", help=text, paper=paper)
        for name, (target, text, paper) in _TRANSFORMS.items()
    ]


@hookimpl
def imgzoo_commands() -> list[CommandSpec]:
    return [CommandSpec("data", "imgzoo_data.cli.data:command", "Check, index and show image data.")]
