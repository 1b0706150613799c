"""`wds:PATTERN`: webdataset shards (tars of key.ext files), read by offset, so with random access, or as a stream.

The format is read here, not through its library: nothing is unpickled, and no command is ever run.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imgzoo.errors import DataError, UsageError
from imgzoo_data.rng import Purpose, generator

from .base import IMAGE_EXTENSIONS, TRAIN, Sample, Source, StreamSource, require_path, split_words
from .classes import load_class_map, multi_hot, names_of, number_of
from .index import IndexBuilder
from .tar import TarFiles, find_tars
from .tarindex import Member, read_members

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS = 100_000
_IMAGE_KEYS = tuple(sorted(e[1:] for e in IMAGE_EXTENSIONS))


def expand(pattern: str) -> list[str]:
    """`"train-{000..002}.tar"` -> three names; `::` separates patterns."""
    names = []
    for part in pattern.split("::"):
        found = _RANGE.search(part)
        if found is None:
            names.append(part)
            continue
        first, last = int(found[1]), int(found[2])
        if not 0 <= last - first < _MOST_SHARDS:
            raise UsageError(f"'{part}' is not an ascending range of at most {_MOST_SHARDS} shards")
        for number in range(first, last + 1):
            names += expand(f"{part[: found.start()]}{number:0{len(found[1])}}{part[found.end() :]}")
    return names


def find_shards(location: str, split: str) -> list[Path]:
    """The shards of a pattern, or of a folder: by its `_info.json`, or as for `tar:`."""
    if "{" in location or "::" in location:
        return [require_path(name, "shard") for name in expand(location)]
    root = require_path(location, "shards")
    info = root / "_info.json"
    if not info.is_file():
        return find_tars(root, split)
    try:
        splits = json.loads(info.read_text())["splits"]
        row = next(splits[word] for word in split_words(split) if word in splits)
        names = row["filenames"] if isinstance(row["filenames"], list) else expand(row["filenames"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{info} cannot be read: {error}") from error
    except StopIteration:
        raise UsageError(f"{info} has no split '{split}'") from None
    return [require_path(str(root / os.path.basename(name)), "shard") for name in names]


class Reader:
    """Turns the files of one key into a sample: which extension is the image, which the target."""

    def __init__(self, image_key: str | None, target_key: str, class_map: Any, num_classes: int | None):
        self.images = tuple(image_key.lower().split(";")) if image_key else _IMAGE_KEYS
        self.target, _, self.field = target_key.lower().partition("/")
        self.numbers = load_class_map(class_map)
        self.names = names_of(self.numbers) if self.numbers else []
        self.num_classes = num_classes or len(self.names)

    def group(self, members: Iterator[Member]) -> Iterator[tuple[str, Member, Member | None]]:
        """(key, image, target file) of each run of members that share a key."""
        key, image, target = None, None, None
        for member in members:
            folder, name = os.path.split(member.name)
            stem, _, extension = name.partition(".")
            own = f"{folder}/{stem}" if folder else stem
            if own != key:
                if key is not None and image is not None:
                    yield key, image, target
                key, image, target = own, None, None
            if extension.lower() in self.images:
                image = member
            elif extension.lower() == self.target:
                target = member
        if key is not None and image is not None:
            yield key, image, target

    def label(self, key: str, raw: bytes | None) -> Any:
        """The target in the bytes of its file; -1 where a key has none."""
        if raw is None:
            return -1
        try:
            text = raw.decode().strip()
            value: Any = json.loads(text) if self.target == "json" else text
            for part in self.field.split("/") if self.field else ():
                value = value[part]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"'{key}.{self.target}' is not readable as a target: {error}") from error
        if isinstance(value, list):
            return multi_hot(value, self.num_classes)
        if self.numbers and not str(value).isdecimal():
            return number_of(value, self.numbers)
        if not str(value).isdecimal():
            raise DataError(
                f"'{key}.{self.target}' holds '{str(value)[:40]}', which is no class number; pass class_map"
            )
        return int(value)


def wds_source(
    location: str,
    split: str = TRAIN,
    image_key: str | None = None,
    target_key: str = "cls",
    class_map: Any = None,
    num_classes: int | None = None,
    streaming: bool = False,
    shuffle: int = 4096,
) -> Source | StreamSource:
    """Open shards: `wds:/data/train-{000..146}.tar`, or a folder of them.

    Args:
        image_key: extensions of the image, separated by `;`; any image extension by default.
        target_key: extension of the target: `cls` (a number, or a name in class_map), or `json/field`.
        streaming: read shards from front to back with a shuffle buffer instead of by index.
    """
    shards = find_shards(location, split)
    reader = Reader(image_key, target_key, class_map, num_classes)
    return WdsStream(shards, reader, shuffle) if streaming else WdsSource(shards, reader)


class WdsSource(Source):
    """Shards with random access: 24 bytes a sample beside its key."""

    def __init__(self, shards: list[Path], reader: Reader):
        self.files = TarFiles(shards)
        which, offsets, sizes = array("i"), array("q"), array("q")
        keys, targets = [], []
        for number, shard in enumerate(shards):
            fd = os.open(shard, os.O_RDONLY)
            try:
                for key, image, target in reader.group(read_members(fd, 0, os.fstat(fd).st_size, [])):
                    raw = os.pread(fd, min(target.size, 1 << 20), target.offset) if target else None
                    targets.append(reader.label(key, raw))
                    keys.append(key)
                    which.append(number)
                    offsets.append(image.offset)
                    sizes.append(image.size)
            finally:
                os.close(fd)
        if not keys:
            raise DataError(f"no images in the {len(shards)} shards; looked for {', '.join(reader.images)}")
        builder = IndexBuilder()
        self.multi_label = isinstance(targets[0], np.ndarray)
        for key, offset, size in zip(keys, offsets, sizes):
            builder.add(key, -1, offset, size)
        self.index, self.which = builder.build(), np.array(which, np.int32)
        self._targets = np.array(targets, np.float32 if self.multi_label else np.int32)
        self.num_classes = reader.num_classes or int(self._targets.max()) + 1
        self.class_names = reader.names

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Sample:
        assert self.index.offsets is not None and self.index.sizes is not None
        place, size = int(self.index.offsets[index]), int(self.index.sizes[index])
        target = self._targets[index]
        data = self.files.read(int(self.which[index]), place, size)
        return Sample(data, target.copy() if self.multi_label else int(target), self.index.name(index))

    def key(self, index: int) -> str:
        return self.index.name(index)

    def targets(self) -> np.ndarray:
        return self._targets


class WdsStream(StreamSource):
    """Shards read from front to back; readers share out the shards, each shuffling through a buffer of `shuffle`
    samples.
    """

    def __init__(self, shards: list[Path], reader: Reader, shuffle: int):
        self.shards, self.reader, self.shuffle = shards, reader, shuffle
        self.class_names, self.num_classes = reader.names, reader.num_classes

    def stream(self, seed: int, epoch: int, reader: int, readers: int, training: bool) -> Iterator[Sample]:
        rng = generator(seed, epoch, purpose=Purpose.SHARDS)
        order = rng.permutation(len(self.shards)) if training else np.arange(len(self.shards))
        if len(self.shards) >= readers:
            samples = (sample for n in order[reader::readers] for sample in self._read(self.shards[n]))
        else:  # fewer shards than readers: each reads all and keeps its share
            everything = (sample for n in order for sample in self._read(self.shards[n]))
            samples = (sample for count, sample in enumerate(everything) if count % readers == reader)
        if not training:
            yield from samples
            return
        yield from shuffled(samples, self.shuffle, generator(seed, epoch, reader, purpose=Purpose.SHARDS))

    def _read(self, shard: Path) -> Iterator[Sample]:
        fd = os.open(shard, os.O_RDONLY)
        try:
            for key, image, target in self.reader.group(read_members(fd, 0, os.fstat(fd).st_size, [])):
                raw = os.pread(fd, min(target.size, 1 << 20), target.offset) if target else None
                yield Sample(os.pread(fd, image.size, image.offset), self.reader.label(key, raw), key)
        finally:
            os.close(fd)


def shuffled(samples: Iterator[Any], size: int, rng: np.random.Generator) -> Iterator[Any]:
    """Shuffle a stream through a buffer of `size` items."""
    held: list[Any] = []
    for sample in samples:
        if len(held) < max(1, size):
            held.append(sample)
            continue
        place = int(rng.integers(len(held)))
        held[place], sample = sample, held[place]
        yield sample
    for place in rng.permutation(len(held)):
        yield held[place]
