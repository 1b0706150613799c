"""What imgzoo asks of a transform and of an image source, as checks of the conformance kit (`imgzoo.testing`)."""

from __future__ import annotations

import pickle
from itertools import islice
from typing import Any

import numpy as np
import torch

from imgzoo.testing import SkipCheck
from imgzoo_data.config import DataConfig
from imgzoo_data.rng import generator
from imgzoo_data.sources.base import Sample, StreamSource, create_dataset
from imgzoo_data.transforms.create import create_transform
from imgzoo_data.transforms.crops import CropStep, EvalCrop
from imgzoo_data.transforms.pipeline import Transform, parse_row
from imgzoo_data.transforms.sequences import SequenceCrop

SIZE = (3, 32, 32)
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 52, 3), np.uint8)
FEW = 8
METHODS = ("key", "place", "region", "size", "is_missing", "targets", "describe")


def _transform(subject: Any) -> Transform:
    options = ", ".join(f"{name}={value!r}" for name, value in subject.options.items())
    (step,) = parse_row(f"{subject.name}({options})")
    if isinstance(step, CropStep):
        return Transform(DataConfig(SIZE), step, training=True)
    return Transform(DataConfig(SIZE), EvalCrop(), (step,), training=True)


def gives_pixels(subject: Any) -> None:
    """`step(picture, rng, config)` returns a `Picture` of uint8 (C, H, W); a crop's `plan` leads to that size."""
    transform = _transform(subject)
    for seed in range(3):
        pixels = transform.pixels(IMAGE.copy(), generator(seed, 0))
        wanted = pixels.shape if isinstance(transform.crop, SequenceCrop) else SIZE  # which chooses its own
        if not isinstance(pixels, torch.Tensor) or pixels.dtype != torch.uint8 or pixels.shape != wanted:
            given = f"{getattr(pixels, 'dtype', type(pixels))} {tuple(getattr(pixels, 'shape', ()))}"
            raise AssertionError(f"it gives {given}, not uint8 {SIZE}")


def draws_from_its_generator(subject: Any) -> None:
    """All chance comes from `rng`: equal generators give equal pixels, whatever was drawn elsewhere."""
    transform = _transform(subject)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    for seed in range(3):
        first, again = (transform.pixels(IMAGE.copy(), generator(seed, 0)) for _ in range(2))
        if not torch.equal(first, again):
            raise AssertionError("two calls with equal generators differ")
    after = torch.random.get_rng_state(), np.random.get_state()[1]  # type: ignore[index]
    if not torch.equal(before[0], after[0]) or not np.array_equal(before[1], after[1]):
        raise AssertionError("it draws from torch's or numpy's own generator, and not from rng alone")


def leaves_its_input_alone(subject: Any) -> None:
    """Neither the image nor the `Picture` of a step is written into."""
    transform, image = _transform(subject), IMAGE.copy()
    transform.pixels(image, generator(0, 0))
    if not np.array_equal(image, IMAGE):
        raise AssertionError("it writes into the image that it is given")
    for step in transform.steps:
        picture = transform.cut(image, generator(0, 0))
        tensor, pil = picture.tensor.clone(), picture.pil.tobytes()
        step(picture, generator(0, 0), transform.config)
        if not torch.equal(picture.tensor, tensor) or picture.pil.tobytes() != pil:
            raise AssertionError("it writes into the picture that it is given")


def reaches_workers(subject: Any) -> None:
    """It can be pickled, as workers that are started anew need."""
    pickle.loads(pickle.dumps(_transform(subject)))


def _opened(subject: Any) -> Any:
    if not isinstance(subject.example, str):
        raise SkipCheck(f"it needs a location to be tried: imgzoo check --example {subject}=LOCATION")
    return create_dataset(f"{subject.name}:{subject.example}", "train")


def _samples(source: Any) -> list[Sample]:
    """The first few samples."""
    if isinstance(source, StreamSource):
        return list(islice(source.stream(0, 0, 0, 1, False), FEW))
    return [source[index] for index in range(min(FEW, len(source)))]


def samples_are_images(subject: Any) -> None:
    """`source[i]` is a `Sample`: bytes of an image file or an array (H, W[, C]), a target, and a name as text."""
    source = _opened(subject)
    lost = [name for name in METHODS if not callable(getattr(source, name, None))]
    if lost and not isinstance(source, StreamSource):
        raise AssertionError(f"'{lost[0]}' is a method of every source, and here a value: call it otherwise")
    samples = _samples(source)
    if not samples:
        raise AssertionError("the example holds no sample")
    transform = create_transform(DataConfig(SIZE))
    for sample in samples:
        if not isinstance(sample, Sample) or not isinstance(sample.key, str):
            raise AssertionError(f"it gives a {type(sample).__name__}, and no Sample(data, target, key)")
        transform.pixels(sample.data)


def targets_are_classes(subject: Any) -> None:
    """A target is the number of a class of `class_names`, a vector for several labels, or numbers to predict."""
    source = _opened(subject)
    names, count = list(source.class_names), source.num_classes or len(source.class_names)
    if any(not isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise AssertionError("class_names are texts, each once")
    for sample in _samples(source):
        target = np.asarray(sample.target)
        if names and not source.multi_label and not (target.ndim == 0 and -1 <= int(target) < count):
            raise AssertionError(f"the target of '{sample.key}' is {sample.target!r}; there are {count} classes")
        if source.multi_label and target.shape != (count,):
            raise AssertionError(f"the target of '{sample.key}' has shape {target.shape}, not ({count},)")


def reads_alike_each_time(subject: Any) -> None:
    """The same sample each time, in this process and after a journey to a worker; none beyond the last."""
    source = _opened(subject)
    again = pickle.loads(pickle.dumps(source))
    for one, other in zip(_samples(source), _samples(again), strict=True):
        if one.key != other.key or not np.array_equal(np.asarray(one.data), np.asarray(other.data)):
            raise AssertionError(f"'{one.key}' is another sample when it is read again")
    if not isinstance(source, StreamSource):
        try:
            source[len(source)]
        except (IndexError, ValueError):
            return
        raise AssertionError("there is a sample beyond the last one")


TRANSFORM = (gives_pixels, draws_from_its_generator, leaves_its_input_alone, reaches_workers)
DATASET = (samples_are_images, targets_are_classes, reads_alike_each_time)
