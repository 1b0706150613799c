"""From a source and a transform to a loader: the parts that `create_loader` puts together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import UsageError

from .config import resolve_data_config
from .device import DeviceStage
from .loader import PREFETCH, Loader, Quarantine
from .mixing import Mixer
from .order import Choice, Order, SizeSchedule
from .samplers import create_sampler
from .sequences import SequenceFetcher, SequenceStage
from .sources.base import StreamSource, create_dataset
from .sources.views import as_source
from .stream import StreamLoader, StreamOrder
from .transforms.create import create_transform
from .transforms.pipeline import Transform
from .transforms.sequences import SequenceCrop
from .worker import POLICIES, Fetcher, Slots


def create_loader(
    source: Any,
    transform: Transform | Any = None,
    batch_size: int = 64,
    *,
    seed: int = 0,
    training: bool | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    epoch: int = 0,
    start_step: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    normalize: bool = True,
    channels_last: bool = False,
    mixer: Mixer | None = None,
    drop_last: bool | None = None,
    repeats: int = 1,
    schedule: SizeSchedule | None = None,
    steps_per_epoch: int | None = None,
    num_samples: int | None = None,
    sampler: Any = "shuffle",
    bad: str | None = None,
    budget: float = 0.001,
    quarantine: str | Path | None = None,
    prefetch: int = PREFETCH,
    context: str | None = None,
) -> Loader:
    """Batches of a source, the same stream for any number of workers; ranks split each global batch.

    Args:
        source: an open source, its name as for `create_dataset`, a torch data set, or a list of (image, label).
        transform: from `create_transform`, or what that takes (a model, a mapping, None).
        batch_size: samples a rank takes each step.
        training: shuffled and augmented; else in order, every sample once. Defaults to the transform's.
        epoch: where to begin, as `seek`.
        start_step: the step of that epoch.
        mixer: mixup, CutMix and label smoothing on the device.
        repeats: repeated augmentation: each sample this many times in a global batch (1901.09335).
        schedule: batches of several sizes (and batch sizes).
        num_samples: length of a streaming source that does not know it.
        sampler: which samples an epoch of training draws: `shuffle` (all once), `balanced` (every class equally often),
            `sqrt` (by the square root of its size), or any iterable of sample numbers with a length.
        bad: what to do with a sample that cannot be read: `raise`, `skip` it, or (training only) `replace` it by a
            random other. Evaluation defaults to raise, training to replace.
        budget: bad samples allowed, a share of the source (at least one sample) or a count from 1 up; then `DataError`.
        quarantine: file to which bad samples are written (path, hash, error), one JSON line each.
        context: how workers start: `fork`, `spawn` or `forkserver`.
    """
    if not isinstance(transform, Transform):
        transform = create_transform(resolve_data_config(transform), training=bool(training))
    shuffled = transform.training if training is None else training
    if isinstance(source, str):
        source = create_dataset(source, "train" if shuffled else "validation")
    else:
        source = as_source(source)
    transform = transform.ranged(source.range)
    policy = _policy(bad, shuffled)
    if mixer is not None and transform.splits > 1:
        raise UsageError("mixing and augmentation splits do not go together; use one of them")
    if mixer is not None and source.num_classes > mixer.num_classes:
        raise UsageError(f"the mixer has {mixer.num_classes} classes, and the source {source.num_classes}")
    stage_options = {
        "device": device,
        "dtype": dtype,
        "normalize": normalize,
        "channels_last": channels_last,
        "mixer": mixer,
    }
    size = _slot_bytes(transform, batch_size, schedule)
    streaming = isinstance(source, StreamSource)
    slots = Slots(max(1, workers) * (prefetch + 1) if streaming else workers * prefetch + 1, size, context)
    sequences = isinstance(transform.crop, SequenceCrop)
    fetcher = (SequenceFetcher if sequences else Fetcher)(source, transform, slots, seed, policy)  # type: ignore[arg-type]
    stage = (SequenceStage if sequences else DeviceStage)(transform, slots, seed=seed, **stage_options)  # type: ignore[arg-type]
    engine = {"workers": workers, "prefetch": prefetch, "context": context}
    if streaming:
        if repeats > 1 or schedule is not None or steps_per_epoch is not None or sampler != "shuffle":
            raise UsageError(
                "repeats, schedule, sampler and steps_per_epoch need a source with random access, no stream"
            )
        counts = StreamOrder(source, batch_size, rank, world, shuffled, num_samples)
        share = _allowed(budget, counts.samples or 0)
        loader: Loader = StreamLoader(counts, fetcher, stage, Quarantine(quarantine, share, policy), **engine)
    else:
        if not shuffled and not (isinstance(sampler, str) and sampler == "shuffle"):
            raise UsageError("a sampler is for training; evaluation takes every sample once, in order")
        length, draw = create_sampler(sampler, source, seed)
        order = Order(
            length, batch_size, seed, rank, world, shuffled, drop_last, repeats, schedule, steps_per_epoch, draw
        )
        share = _allowed(budget, len(source))
        loader = Loader(order, fetcher, stage, Quarantine(quarantine, share, policy), **engine)
    loader.seek(epoch, start_step)
    return loader


def _allowed(budget: float, samples: int) -> int:
    """How many bad samples are allowed: a count from 1 up, or a share of the samples, at least one."""
    return int(budget) if budget >= 1 else max(1, int(budget * samples))


def _policy(bad: str | None, training: bool) -> str:
    policy = bad or ("replace" if training else "raise")
    if policy not in POLICIES:
        raise UsageError(f"bad='{policy}' is unknown; use {', '.join(POLICIES)}")
    if policy == "replace" and not training:
        raise UsageError("evaluation never replaces a sample by another; use bad='raise' or bad='skip'")
    return policy


def _slot_bytes(transform: Transform, batch_size: int, schedule: SizeSchedule | None) -> int:
    channels, *size = transform.config.input_size
    sequences = isinstance(transform.crop, SequenceCrop)
    if isinstance(transform.crop, SequenceCrop):
        size = transform.crop.size(None)
    choices = schedule.choices if schedule is not None else (Choice(size, batch_size),)
    areas = [c.batch_size * (c.size[0] ** 2 if sequences else c.size[0]) * c.size[1] for c in choices]
    return max(areas) * channels * transform.splits
