"""What a network wants to see: size, normalization, interpolation and crop, resolved from a model's pretrained_cfg."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from imgzoo.errors import OptionError, UsageError
from imgzoo.options import plain_numbers

from .depth import parse_range

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INCEPTION_MEAN = INCEPTION_STD = (0.5, 0.5, 0.5)
DPN_MEAN = (124 / 255, 117 / 255, 104 / 255)
DPN_STD = (1 / (0.0167 * 255),) * 3
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

CROP_MODES = ("center", "squash", "border")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos", "box", "hamming", "random")


@dataclass(frozen=True)
class DataConfig:
    """Input size (C, H, W), per-channel mean and std of images scaled to [0, 1], interpolation, crop share and mode."""

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"
    range: tuple[float, float] | None = None
    """Values of black and white of images of more than 8 bits, where they are not those of the number type."""

    def __post_init__(self) -> None:
        if len(self.input_size) != 3 or min(self.input_size) < 1:
            raise UsageError(f"input_size is (channels, height, width), all positive, not {self.input_size}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(f"interpolation '{self.interpolation}' is unknown; use one of {', '.join(INTERPOLATIONS)}")
        if self.crop_mode not in CROP_MODES:
            raise UsageError(f"crop_mode '{self.crop_mode}' is unknown; use one of {', '.join(CROP_MODES)}")
        if not self.crop_pct > 0:
            raise UsageError(f"crop_pct must be positive, not {self.crop_pct}")
        for name in ("mean", "std"):
            object.__setattr__(self, name, _per_channel(getattr(self, name), self.input_size[0], name))
        object.__setattr__(self, "input_size", tuple(int(n) for n in self.input_size))
        if self.range is not None:
            object.__setattr__(self, "range", parse_range(self.range))

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON-able values; a range only where one is declared."""
        return {name: value for name, value in asdict(self).items() if name != "range" or value is not None}


def _per_channel(values: Any, channels: int, name: str) -> tuple[float, ...]:
    values = (float(values),) if isinstance(values, int | float) else tuple(float(v) for v in values)
    if len(values) == channels:
        return values
    if len(values) == 1 or len(set(values)) == 1:
        return values[:1] * channels
    if channels == 1 or len(values) == 3:  # grayscale, or more channels than statistics: the average of the three
        return (sum(values) / len(values),) * channels
    raise UsageError(f"{name} has {len(values)} values for {channels} channels; give one a channel, or a single one")


def resolve_data_config(model_or_cfg: Any = None, *, use_test_size: bool = False, **overrides: Any) -> DataConfig:
    """The `DataConfig` of a model, its `pretrained_cfg` mapping, or a `DataConfig`; overrides that are None are
    dropped.

    `img_size` (int or pair) and `in_chans` override parts of `input_size`. `use_test_size` takes the size and crop that
    the weights were best evaluated at, where they have one. Unknown overrides raise `OptionError`.
    """
    cfg = model_or_cfg.to_dict() if isinstance(model_or_cfg, DataConfig) else _as_mapping(model_or_cfg)
    overrides = {key: plain_numbers(value) for key, value in overrides.items() if value is not None}
    names = {field.name for field in fields(DataConfig)}
    unknown = overrides.keys() - names - {"img_size", "in_chans"}
    if unknown:
        raise OptionError(f"unknown data option {sorted(unknown)}; use {sorted(names | {'img_size', 'in_chans'})}")

    values = {key: cfg[key] for key in names if cfg.get(key) is not None}
    if use_test_size:
        values.update({k: cfg["test_" + k] for k in ("input_size", "crop_pct") if cfg.get("test_" + k) is not None})
    size = list(overrides.pop("input_size", None) or values.get("input_size") or DataConfig.input_size)
    img_size = overrides.pop("img_size", None)
    if img_size is not None:
        size[1:] = (img_size, img_size) if isinstance(img_size, int) else img_size
    size[0] = overrides.pop("in_chans", size[0])
    values.update(overrides, input_size=tuple(size))
    return replace(DataConfig(), **{"mean": IMAGENET_MEAN, "std": IMAGENET_STD, **values})


def _as_mapping(model_or_cfg: Any) -> Mapping[str, Any]:
    if model_or_cfg is None:
        return {}
    cfg: Any = model_or_cfg if isinstance(model_or_cfg, Mapping) else getattr(model_or_cfg, "pretrained_cfg", None)
    if cfg is None:
        raise UsageError(
            f"{type(model_or_cfg).__name__} has no pretrained_cfg; pass a model, a mapping or a DataConfig"
        )
    if hasattr(cfg, "to_dict"):
        cfg = cfg.to_dict()
    elif hasattr(cfg, "_asdict"):
        cfg = cfg._asdict()
    return cfg
