"""Datasets of Pillow images over imgzoo's sources, and loaders over them."""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from torch.utils.data.distributed import DistributedSampler

import imgzoo
from imgzoo.errors import UsageError
from imgzoo_data.info import RealLabels
from imgzoo_data.order import permutation
from imgzoo_data.sources.base import StreamSource

from ._constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from ._factory import create_transform
from ._readers import SCHEMES, Reader, SourceReader, source_of
from ._scheduled import ScheduledBatchSampler, ScheduledTransformDataset
from ._transforms import RandomErasing

Transform = Callable[[Any], Any]


class ImageDataset(Dataset):
    """Images of a folder, an archive or any of imgzoo's sources: (image, class)."""

    def __init__(self, root: Any, reader: Any = None, split: str = "train", class_map: Any = None,
                 load_bytes: bool = False, input_img_mode: str = "RGB", transform: Transform | None = None,
                 target_transform: Transform | None = None, additional_features: Any = None,
                 **kwargs: Any):  # fmt: skip
        if additional_features:
            raise ValueError("samples are an image and a target here: see imgzoo.create_dataset")
        options = {"class_map": class_map} if class_map else {}
        self.source = reader if reader is not None and not isinstance(reader, str) else \
            imgzoo.create_dataset(str(root), split, **options, **kwargs)  # fmt: skip
        self.transform, self.target_transform = transform, target_transform
        self.load_bytes, self.input_img_mode, self.root = load_bytes, input_img_mode, root

    @property
    def reader(self) -> Any:
        return self.source if isinstance(self.source, Reader) else SourceReader(self.source, self.root)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = self.source[index][:2]
        if self.load_bytes:
            image = image.read() if hasattr(image, "read") else image
        else:
            image = opened(image)
            if self.input_img_mode:
                image = image.convert(self.input_img_mode)
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        return self.reader.filename(index, basename, absolute)

    def filenames(self, basename: bool = False, absolute: bool = False) -> list[str]:
        return [self.filename(i, basename, absolute) for i in range(len(self))]


def opened(stored: Any) -> Image.Image:
    """An image as it is stored: a file, bytes, or an array."""
    if isinstance(stored, (bytes, memoryview)):
        stored = io.BytesIO(stored)
    return Image.open(stored) if hasattr(stored, "read") else Image.fromarray(np.asarray(stored))


class IterableImageDataset(IterableDataset):
    """The same in the order of the source, shuffled in training: each worker of each process has its share."""

    def __init__(self, root: Any, reader: Any = None, split: str = "train", class_map: Any = None,
                 is_training: bool = False, batch_size: int = 1, num_samples: int | None = None, seed: int = 42,
                 repeats: int = 0, download: bool = False, input_img_mode: str = "RGB", input_key: str | None = None,
                 target_key: str | None = None, transform: Transform | None = None,
                 target_transform: Transform | None = None, max_steps: int | None = None, **kwargs: Any):  # fmt: skip
        if max_steps is not None:
            raise UsageError("max_steps is not taken here: num_samples says how long an epoch is")
        options = {
            "class_map": class_map,
            "input_key": input_key,
            "target_key": target_key,
            "download": download or None,
        }
        self.source = reader if reader is not None and not isinstance(reader, str) else \
            source_of(reader, root, split, {**options, **kwargs})  # fmt: skip
        self.transform, self.target_transform, self.input_img_mode = transform, target_transform, input_img_mode
        self.is_training, self.batch_size, self.num_samples = is_training, batch_size, num_samples
        self.seed, self.repeats = seed, repeats
        self.root = root
        self.epoch = torch.tensor(0).share_memory_()  # living workers see it too

    @property
    def reader(self) -> Any:
        return self.source if isinstance(self.source, Reader) else SourceReader(self.source, self.root)

    def _samples(self) -> Iterator[Any]:
        info, world = get_worker_info(), torch.distributed
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        if world.is_available() and world.is_initialized():
            worker, workers = world.get_rank() * workers + worker, world.get_world_size() * workers
        for turn in range(self.repeats or 1):
            epoch = int(self.epoch) * (self.repeats or 1) + turn
            if isinstance(self.source, StreamSource):
                yield from self.source.stream(self.seed, epoch, worker, workers, self.is_training)
            else:
                count = len(self.source)
                order = permutation(count, self.seed, epoch) if self.is_training else range(count)
                yield from (self.source[int(i)] for i in order[worker::workers])

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for image, target, *_ in self._samples():
            image = opened(image)
            image = image.convert(self.input_img_mode) if self.input_img_mode else image
            yield (self.transform(image) if self.transform is not None else image,
                   self.target_transform(target) if self.target_transform is not None else target)  # fmt: skip

    def __len__(self) -> int:
        return (self.num_samples or len(self.source)) * (self.repeats or 1)

    def set_epoch(self, count: int) -> None:
        self.epoch.fill_(count)

    def set_loader_cfg(self, num_workers: int | None = None) -> None:
        """Nothing: workers are told apart when they begin."""

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        raise UsageError("samples in a source's own order have no numbers: ImageDataset has file names")

    def filenames(self, basename: bool = False, absolute: bool = False) -> list[str]:
        return [self.filename(0)]


class AugMixDataset(Dataset):
    """Each image as it is and in `num_splits - 1` augmented forms; the transform is three (`separate=True`)."""

    def __init__(self, dataset: Any, num_splits: int = 2):
        self.dataset, self.num_splits = dataset, num_splits
        self.augmentation: Any = None
        self.normalize: Any = None
        if self.dataset.transform is not None:
            self._set_transforms(self.dataset.transform)

    def _set_transforms(self, x: Any) -> None:
        if not isinstance(x, (list, tuple)) or len(x) != 3:
            raise ValueError("AugMix needs the three transforms of create_transform(separate=True)")
        self.dataset.transform, self.augmentation, self.normalize = x

    @property
    def transform(self) -> Any:
        return self.dataset.transform

    @transform.setter
    def transform(self, x: Any) -> None:
        self._set_transforms(x)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        x, y = self.dataset[i]
        finish = self.normalize or (lambda each: each)
        return (finish(x), *(finish(self.augmentation(x)) for _ in range(self.num_splits - 1))), y

    def __len__(self) -> int:
        return len(self.dataset)


def create_dataset(name: str, root: str | None = None, split: str = "validation", search_split: bool = True,
                   class_map: Any = None, load_bytes: bool = False, is_training: bool = False, download: bool = False,
                   batch_size: int = 1, num_samples: int | None = None, seed: int = 42, repeats: int = 0,
                   input_img_mode: str = "RGB", trust_remote_code: bool = False, **kwargs: Any) -> Any:  # fmt: skip
    """A dataset by the field's names: "" for a folder or an archive, `hfds/...`, `torch/...`, `wds/...`, `tfds/...`.

    Without `search_split` every folder of a folder or an archive is a class; other sources look for none anyway.
    """
    if trust_remote_code:
        raise UsageError("code that comes with a dataset is not run: leave trust_remote_code out")
    options = {key: value for key, value in kwargs.items() if value is not None}
    changes = {key: options.pop(key) for key in ("transform", "target_transform") if key in options}
    scheme = (name or "").partition("/")[0].lower()
    if download and scheme not in ("hfds", "hfids"):  # whose library brings what is not there
        options["download"] = True
    if scheme not in SCHEMES:
        if not search_split:
            options["search_split"] = False
        return ImageDataset(root, None, split, class_map, load_bytes, input_img_mode, **changes, **options)
    source = source_of(name, root, split, {"class_map": class_map, **options})
    if isinstance(source, StreamSource):
        return IterableImageDataset(root, source, split, None, is_training, batch_size, num_samples, seed, repeats,
                                    input_img_mode=input_img_mode, **changes)  # fmt: skip
    return ImageDataset(root, source, split, load_bytes=load_bytes, input_img_mode=input_img_mode, **changes)


def fast_collate(batch: list[Any]) -> tuple[Tensor, Tensor]:
    """Samples of bytes and classes as one batch; the splits of AugMix one after another.

    Classes are long; vectors (of several labels) keep their type. Raises `ValueError` for numbers that are no class.
    """
    first = batch[0][0]
    targets = torch.as_tensor(np.array([sample[1] for sample in batch]))
    if targets.ndim == 1:
        classes = targets.long()
        if not (classes == targets).all():
            raise ValueError("a target is no class number: say use_prefetcher=False to load numbers to predict")
        targets = classes
    if isinstance(first, tuple):
        images = [torch.as_tensor(sample[0][i]) for i in range(len(first)) for sample in batch]
        return torch.stack(images), targets.repeat(len(first), *[1] * (targets.ndim - 1))
    return torch.stack([torch.as_tensor(sample[0]) for sample in batch]), targets


class PrefetchLoader:
    """Batches on the device, normalized there, erased if so asked."""

    def __init__(self, loader: Any, mean: Any = IMAGENET_DEFAULT_MEAN, std: Any = IMAGENET_DEFAULT_STD,
                 channels: int = 3, device: torch.device = torch.device("cuda"),  # noqa: B008
                 img_dtype: torch.dtype | None = None, fp16: bool = False, re_prob: float = 0.0,
                 re_mode: str = "const", re_count: int = 1, re_num_splits: int = 0):  # fmt: skip
        self.loader, self.device = loader, torch.device(device)
        self.img_dtype = img_dtype or (torch.float16 if fp16 else torch.float32)
        shape = (1, channels, 1, 1)
        mean, std = (tuple(each) * channels if len(tuple(each)) == 1 else tuple(each) for each in (mean, std))
        self.mean = torch.tensor([x * 255 for x in mean], device=self.device, dtype=self.img_dtype).view(shape)
        self.std = torch.tensor([x * 255 for x in std], device=self.device, dtype=self.img_dtype).view(shape)
        self.random_erasing = None
        if re_prob > 0.0:
            self.random_erasing = RandomErasing(re_prob, mode=re_mode, max_count=re_count, num_splits=re_num_splits)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, targets in self.loader:
            images = images.to(self.device, non_blocking=True).to(self.img_dtype).sub_(self.mean).div_(self.std)
            if self.random_erasing is not None:
                images = self.random_erasing(images)
            yield images, targets.to(self.device, non_blocking=True)

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def sampler(self) -> Any:
        batches = self.loader.batch_sampler
        return batches if isinstance(batches, ScheduledBatchSampler) else self.loader.sampler

    @property
    def batch_sampler(self) -> Any:
        return self.loader.batch_sampler

    @property
    def dataset(self) -> Any:
        return self.loader.dataset

    @property
    def mixup_enabled(self) -> bool:
        return getattr(self.loader.collate_fn, "mixup_enabled", False)

    @mixup_enabled.setter
    def mixup_enabled(self, x: bool) -> None:
        if hasattr(self.loader.collate_fn, "mixup_enabled"):
            self.loader.collate_fn.mixup_enabled = x


class OrderedDistributedSampler(torch.utils.data.Sampler):
    """A process's share of the samples in order, filled up from the front so that all have as many."""

    def __init__(self, dataset: Any, num_replicas: int | None = None, rank: int | None = None):
        world = torch.distributed
        self.dataset = dataset
        self.num_replicas = world.get_world_size() if num_replicas is None else num_replicas
        self.rank = world.get_rank() if rank is None else rank
        self.num_samples = -(-len(dataset) // self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.dataset)))
        order += order[: self.total_size - len(order)]
        return iter(order[self.rank : self.total_size : self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples


class RepeatAugSampler(torch.utils.data.Sampler):
    """Each sample several times in a row, over the processes, so that they see it augmented apart (1901.09335)."""

    def __init__(self, dataset: Any, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True,
                 num_repeats: int = 3, selected_round: int = 256, selected_ratio: int = 0):  # fmt: skip
        world = torch.distributed
        self.dataset, self.shuffle, self.num_repeats, self.epoch = dataset, shuffle, num_repeats, 0
        self.num_replicas = world.get_world_size() if num_replicas is None else num_replicas
        self.rank = world.get_rank() if rank is None else rank
        self.num_samples = -(-len(dataset) * num_repeats // self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas
        ratio = selected_ratio or self.num_replicas
        count = len(dataset) // selected_round * selected_round if selected_round else len(dataset)
        self.num_selected_samples = -(-(count or len(dataset)) // ratio) if not selected_round else count // ratio

    def __iter__(self) -> Iterator[int]:
        drawn = torch.Generator().manual_seed(self.epoch)
        count = len(self.dataset)
        order = torch.randperm(count, generator=drawn) if self.shuffle else torch.arange(count)
        order = order.repeat_interleave(self.num_repeats).tolist()
        order += order[: self.total_size - len(order)]
        return iter(order[self.rank : self.total_size : self.num_replicas][: self.num_selected_samples])

    def __len__(self) -> int:
        return self.num_selected_samples

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class MultiEpochsDataLoader(DataLoader):
    """A loader whose workers live from epoch to epoch."""

    def __init__(self, *args: Any, **kwargs: Any):
        workers = kwargs.get("num_workers", args[5] if len(args) > 5 else 0)
        super().__init__(*args, **{**kwargs, "persistent_workers": workers > 0})


def worker_seeds(how: Any) -> Callable[[int], None] | None:
    """What a worker of a loader begins with. torch seeds its own generator, Python's and numpy's, each apart (`part`);
    `all` gives numpy the worker's number too, and a function of the worker's `get_worker_info()` gives all of them one.
    """
    if callable(how):
        return functools.partial(seed_worker, how)
    if how not in ("all", "part"):
        raise UsageError(f"worker_seeding is all, part or a function, not {how!r}")
    return functools.partial(seed_worker, None) if how == "all" else None


def seed_worker(told: Callable[..., Any] | None, _: int) -> None:
    info: Any = get_worker_info()
    seed = info.seed if told is None else told(info)
    if told is not None:
        random.seed(seed)
        torch.manual_seed(seed)
    np.random.seed(seed % (2**32 - 1))


def create_loader(
    dataset: Any, input_size: Any, batch_size: int, is_training: bool = False, no_aug: bool = False,
    re_prob: float = 0.0, re_mode: str = "const", re_count: int = 1, re_split: bool = False,
    train_crop_mode: str | None = None, scale: Any = None, ratio: Any = None, hflip: float = 0.5, vflip: float = 0.0,
    color_jitter: Any = 0.4, color_jitter_prob: float | None = None, grayscale_prob: float = 0.0,
    gaussian_blur_prob: float = 0.0, auto_augment: str | None = None, num_aug_repeats: int = 0,
    num_aug_splits: int = 0, interpolation: str = "bilinear", mean: Any = IMAGENET_DEFAULT_MEAN,
    std: Any = IMAGENET_DEFAULT_STD, num_workers: int = 1, distributed: bool = False, crop_pct: float | None = None,
    crop_mode: str | None = None, crop_border_pixels: int | None = None, collate_fn: Any = None,
    pin_memory: bool = False, fp16: bool = False, img_dtype: torch.dtype = torch.float32,
    device: torch.device = torch.device("cuda"), use_prefetcher: bool = True,  # noqa: B008
    use_multi_epochs_loader: bool = False, persistent_workers: bool = True, worker_seeding: Any = "all",
    tf_preprocessing: bool = False, input_size_choices: Any = None, batch_size_choices: Any = None,
    batch_choice_weights: Any = None, batch_choice_seed: int = 0, batch_choice_schedule: str = "constant",
    batch_schedule_epochs: int | None = None, batch_schedule_spread: float = 0.65,
    batch_schedule_random_mix: float = 0.1, num_batches: int | None = None,
) -> Any:  # fmt: skip
    """Batches of a dataset whose transform is set here: normalized, on the device with `use_prefetcher`.

    `use_multi_epochs_loader` keeps the workers from epoch to epoch, as `persistent_workers` does; for `worker_seeding`
    see `worker_seeds`.
    """
    splits = num_aug_splits if re_split else 0
    sizes, counts = list(input_size_choices or ()), list(batch_size_choices or ())
    if (sizes or counts) and (not is_training or num_aug_splits or (counts and len(counts) != len(sizes))):
        raise ValueError("batches of several sizes are for training without splits: as many batch_size_choices as "
                         "input_size_choices, or none")  # fmt: skip
    if sizes and use_multi_epochs_loader:
        raise ValueError("batches of several sizes are not for MultiEpochsDataLoader: use persistent_workers")
    if any(side < 1 for size in sizes for side in (size if isinstance(size, (tuple, list)) else (size,))):
        raise ValueError(f"input_size_choices: all dimensions must be positive, not {sizes}")
    transforms = [create_transform(
        size, is_training, no_aug, train_crop_mode, scale, ratio, hflip, vflip, color_jitter, color_jitter_prob,
        grayscale_prob, gaussian_blur_prob, auto_augment, interpolation, mean, std, re_prob, re_mode, re_count, splits,
        crop_pct, crop_mode, crop_border_pixels, tf_preprocessing, use_prefetcher=use_prefetcher,
        separate=num_aug_splits > 0) for size in sizes or [input_size]]  # fmt: skip
    dataset.transform = None if sizes else transforms[0]
    sampler: Any = None
    streams = isinstance(dataset, IterableDataset)  # and has an order and a share of its own
    if distributed and not streams:
        sampler = DistributedSampler(dataset) if is_training and not num_aug_repeats else \
            RepeatAugSampler(dataset, num_repeats=num_aug_repeats) if is_training else \
            OrderedDistributedSampler(dataset)  # fmt: skip
    batches: dict[str, Any] = dict(batch_size=batch_size, shuffle=sampler is None and is_training and not streams,
                                   sampler=sampler, drop_last=is_training)  # fmt: skip
    if sizes:
        dataset = ScheduledTransformDataset(dataset, transforms)
        batches = {"batch_sampler": ScheduledBatchSampler(
            sampler or torch.utils.data.RandomSampler(dataset), counts or [batch_size] * len(sizes),
            batch_choice_weights, batch_choice_seed, num_batches=num_batches, choice_schedule=batch_choice_schedule,
            schedule_epochs=batch_schedule_epochs, schedule_spread=batch_schedule_spread,
            schedule_random_mix=batch_schedule_random_mix)}  # fmt: skip
    loader: Any = (MultiEpochsDataLoader if use_multi_epochs_loader else DataLoader)(
        dataset, num_workers=num_workers, collate_fn=collate_fn or (fast_collate if use_prefetcher else None),
        pin_memory=pin_memory, persistent_workers=persistent_workers and num_workers > 0,
        worker_init_fn=worker_seeds(worker_seeding), **batches)  # fmt: skip
    if not use_prefetcher:
        return loader
    chans = input_size[0] if isinstance(input_size, (tuple, list)) and len(input_size) == 3 else 3
    return PrefetchLoader(loader, mean, std, chans, device, img_dtype, fp16, 0.0 if no_aug or not is_training else
                          re_prob, re_mode, re_count, splits)  # fmt: skip


class RealLabelsImagenet:
    """Accuracy on ReaL labels by the names of the images, in the order of results."""

    def __init__(self, filenames: Any, real_json: str | None = None, topk: tuple[int, ...] = (1, 5)):
        if real_json is not None:
            raise ValueError("the ReaL labels come with imgzoo-data: leave real_json out")
        self.native, self.sample_idx, self.topk = RealLabels(list(filenames), topk), 0, topk

    def add_result(self, output: Tensor) -> None:
        count = len(output)
        self.native.add(output.topk(max(self.topk), 1).indices.cpu(), range(self.sample_idx, self.sample_idx + count))
        self.sample_idx += count

    def get_accuracy(self, k: int | None = None) -> Any:
        return {each: self.native.accuracy(each) for each in self.topk} if k is None else self.native.accuracy(k)
