"""A pipeline is a row: `rrc(scale=(0.08, 1.0)) | hflip(p=0.5) | randaugment('rand-m9-mstd0.5')`. It can be written
down and read.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image

from imgzoo.errors import DataError, OptionError, UsageError
from imgzoo_data.config import DataConfig
from imgzoo_data.decode import (
    MAX_PIXELS,
    check_size,
    decode_image,
    pillow_to_array,
    read_header,
    to_uint8,
    turn_upright,
)
from imgzoo_data.erasing import Erase, erase_batch
from imgzoo_data.rng import generator
from imgzoo_data.sources.base import check_options

from .crops import CropStep, EvalCrop
from .picture import Picture
from .policies import create_policy
from .resample import resample
from .sequences import SequenceCrop

_ENGINES = {"exact": "exact", "fast": "torch", "reference": "pillow"}
_STEP = re.compile(r"((?:[\w-]+/)?[\w-]+)\s*(\(.*\))?", re.DOTALL)
_POLICY = re.compile(r"(rand|augmix)-[\w.-]+|(originalr?|v0r?|3a)(-[\w.-]+)?")
Step = Callable[[Picture, Generator, Any], Picture]


@dataclass(frozen=True)
class Transform:
    """Encoded bytes, an array, a Pillow image or a tensor -> what the network sees: float32 (C, H, W), normalized.

    The first step is the crop; the others change pixels. `transform(image)` draws from torch's generator, so that calls
    and workers differ; the loader asks for `pixels`, uint8 and with a generator of its own. `decode` is
    `exact` (Pillow's pixels), `fast` (JPEG shrunk while decoding where the crop is at least twice the target) or
    `reference` (Pillow throughout). `splits` above 1 also returns that many versions: the first without the steps after
    the crop and flips, the others each with their own draw (AugMix).
    """

    config: DataConfig
    crop: CropStep
    steps: tuple[Step, ...] = ()
    training: bool = False
    decode: str = "exact"
    splits: int = 1
    erase: Erase = field(default_factory=Erase)
    max_pixels: int = MAX_PIXELS
    orient: bool = True

    def __call__(self, data: Any, rng: Generator | None = None, size: Any = None) -> torch.Tensor:
        """One image (C, H, W) float32, (pixel / 255 - mean) / std, then erased where that is asked for.

        `rng` is drawn from torch's generator where none is given; `size` overrides the config's (H, W).
        """
        rng = rng or self._draw()
        pixels = self.pixels(data, rng, size).float().div_(255)
        mean, std = (torch.tensor(each, device="cpu") for each in (self.config.mean, self.config.std))
        pixels.sub_(mean[:, None, None]).div_(std[:, None, None])
        if self.erase.p > 0:
            erase_batch(pixels[None], self.erase, int(rng.integers(1 << 62)), 0, [0], [0])
        return pixels

    def ranged(self, values: tuple[float, float] | None) -> Transform:
        """The transform for a source that declares its values of black and white; itself where it declares none."""
        return self if values is None else replace(self, config=replace(self.config, range=values))

    def _draw(self) -> Generator:
        """A generator seeded by torch's; that one is not touched where nothing is random."""
        fixed = not self.training and not self.steps and isinstance(self.crop, EvalCrop)
        return generator(0 if fixed else int(torch.randint(1 << 62, (), device="cpu")), 0)

    def pixels(self, data: Any, rng: Generator | None = None, size: Any = None) -> torch.Tensor:
        """One image (C, H, W) uint8, as the loader takes it; all chance comes from `rng`."""
        rng = rng or self._draw()
        picture = self.cut(data, rng, size)
        for step in self.steps:
            picture = step(picture, rng, self.config)
        return picture.tensor

    def versions(self, data: Any, rng: Generator, size: Any = None) -> list[torch.Tensor]:
        """The `splits` versions of an image, the clean one first."""
        picture = self.cut(data, rng, size)
        for step in self.steps:
            if getattr(step, "primary", False):
                picture = step(picture, rng, self.config)
        results = [picture.tensor]
        for _ in range(self.splits - 1):
            changed = picture
            for step in self.steps:
                if not getattr(step, "primary", False):
                    changed = step(changed, rng, self.config)
            results.append(changed.tensor)
        return results

    def cut(self, data: Any, rng: Generator, size: Any = None) -> Picture:
        """The crop step alone, for the part of the source it chose; the rest of a JPEG is decoded no finer than
        needed.
        """
        channels, *own = self.config.input_size
        target: Any = tuple(own) if size is None and not isinstance(self.crop, SequenceCrop) else size
        engine = _ENGINES[self.decode]
        if not isinstance(data, bytes | bytearray | memoryview):
            array = as_array(data, channels, self.max_pixels, self.config.range)
            plan = self.crop.plan(array.shape[0], array.shape[1], target, rng, self.config)
            return Picture(resample(array, plan, engine))

        header = read_header(data, self.max_pixels)
        height, width = header.upright if self.orient else (header.height, header.width)
        plan = self.crop.plan(height, width, target, rng, self.config)
        shrink = plan.shrink() if self.decode == "fast" and header.simple else 1
        array = decode_image(
            data,
            channels,
            backend=self.decode,
            header=header,
            shrink=shrink,
            orient=False,
            max_pixels=self.max_pixels,
            range=self.config.range,
            reuse=True,
        )
        if self.orient:
            array = turn_upright(array, header.orientation)
        if shrink > 1 and array.shape[:2] == (height, width):
            shrink = 1  # damaged, so Pillow read it, whole
        return Picture(resample(array, plan.shrunk(shrink, array.shape[0], array.shape[1]), engine))

    def __str__(self) -> str:
        return format_row((self.crop, *self.steps))


def as_array(
    data: Any, channels: int, max_pixels: int = MAX_PIXELS, values: tuple[float, float] | None = None
) -> np.ndarray:
    """An array (H, W[, C]), Pillow image or tensor (C, H, W) as (H, W, channels) uint8; `values` of black and white."""
    if isinstance(data, Image.Image):
        check_size(data.width, data.height, max_pixels)
        return pillow_to_array(data, channels, values)
    if isinstance(data, torch.Tensor):
        data = data.permute(1, 2, 0).numpy() if data.dim() == 3 else data.numpy()
    if not isinstance(data, np.ndarray) or data.ndim not in (2, 3):
        raise DataError(
            f"{type(data).__name__} is not an image; give encoded bytes, an array (H, W, C), or a Pillow image"
        )
    check_size(data.shape[1], data.shape[0], max_pixels)
    return to_uint8(data, channels, values)


def step_name(step: Any) -> str:
    """The registered name of a step object, by its class."""
    from imgzoo.registry import registry

    target = f"{type(step).__module__}:{type(step).__qualname__}"
    for spec in registry("transforms").specs():
        if spec.target == target:
            return spec.name
    return type(step).__qualname__


def format_row(steps: Sequence[Any]) -> str:
    """Steps as a row; `parse_row` reads it back. Only arguments that differ from their defaults are written."""
    written = []
    for step in steps:
        own = [f for f in fields(step) if f.init] if is_dataclass(step) else []
        changed = [f for f in own if getattr(step, f.name) != f.default]
        arguments = ", ".join(f"{f.name}={getattr(step, f.name)!r}" for f in changed)
        written.append(f"{step_name(step)}({arguments})" if arguments else step_name(step))
    return " | ".join(written)


def parse_row(row: str) -> list[Any]:
    """Build the steps of a row, `name(argument=literal, ...) | name | ...`; names come from the `transforms`
    registry.
    """
    from imgzoo.registry import registry

    steps = []
    for text in row.split("|"):
        text = text.strip()
        if _POLICY.fullmatch(text):
            steps.append(create_policy(text))
            continue
        name, args, options = _read_call(text, row)
        spec = registry("transforms").resolve(name)
        target = spec.load()
        options = {**spec.kwargs, **options}
        check_options(target, options, f"transform '{name}'")
        try:
            steps.append(target(*args, **options))
        except TypeError as error:
            raise OptionError(f"transform '{name}': {error}") from error
    return steps


def _read_call(text: str, row: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The `[plugin/]name` of a step, and the plain values of its arguments."""
    found = _STEP.fullmatch(text)
    name = found[1] if found else ""
    try:
        call = ast.parse(f"step{found[2] or '()'}", mode="eval").body if found else None
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        call = None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise UsageError(f"transform row '{row}' cannot be read: '{text}' is not a name or a name(argument=value)")
    try:
        args = [ast.literal_eval(a) for a in call.args]
        options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (ValueError, TypeError) as error:
        raise UsageError(f"transform row '{row}': the arguments of {name} must be plain values") from error
    return name, args, options
