"""The augmentations of `create_transform` as a table, for command lines. Imports neither torch nor numpy."""

from __future__ import annotations

from typing import Any

AUGMENTATIONS: dict[str, tuple[Any, str]] = {
    "row": (str, "the whole pipeline written down, 'rrc(scale=(0.3, 1)) | hflip | rand-m9-mstd0.5'"),
    "crop_kind": (("rrc", "rkrc", "rkrr"), "random-resized crop, or the ratio kept with a center or a random crop"),
    "scale": (list[float], "least and greatest share of the area that a crop takes"),
    "ratio": (list[float], "least and greatest aspect of a crop"),
    "hflip": (float, "probability of a left-right flip"),
    "vflip": (float, "probability of an up-down flip"),
    "auto_augment": (str, "policy: rand-m9-mstd0.5-inc1, original, originalr, v0, v0r, 3a, augmix-m3-w3"),
    "color_jitter": (list[float], "strength of the color jitter: one number, or brightness, contrast, saturation, hue"),
    "color_jitter_prob": (float, "probability of the color jitter"),
    "force_color_jitter": (bool, "color jitter beside a policy too"),
    "grayscale_prob": (float, "probability of gray"),
    "blur_prob": (float, "probability of a Gaussian blur"),
    "erase": (float, "probability of random erasing"),
    "erase_mode": (("const", "rand", "pixel"), "what an erased box holds: zero, one color, or noise"),
    "erase_count": (int, "boxes that an erased image loses"),
    "splits": (int, "versions of each image in a batch, the first one clean (AugMix)"),
    "decode": (("exact", "fast", "reference"), "how training images are decoded and resized"),
}
"""Option of `create_transform` -> (type, or the words it takes; what it does)."""
PROBABILITIES = ("hflip", "vflip", "color_jitter_prob", "grayscale_prob", "blur_prob")
