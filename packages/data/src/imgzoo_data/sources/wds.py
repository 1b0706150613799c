"""`wds:PATTERN`: webdataset shards (tars of key.ext files), read by offset, so with random access, or as a stream.

The format is read here, not through its library: nothing is unpickled, and no command is ever run.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from imgzoo.errors import DataError, UsageError
from imgzoo_data.rng import Purpose, generator

from .archive import ArchiveFiles, find_archives
from .base import IMAGE_EXTENSIONS, TRAIN, Sample, Source, StreamSource, real_place, require_path, split_words
from .index import IndexBuilder
from .layout import no_split
from .targets import Targets, nested
from .tarindex import Member, is_hidden, read_members

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


def find_shards(location: str, split: str) -> tuple[list[Path], str, bool]:
    """The shards of a pattern, or of a folder by its `_info.json` or as for `tar:`; what serves the split; and whether
    that is all there is.
    """
    if "{" in location or "::" in location:
        return [require_path(name, "shard") for name in expand(location)], f"shards '{location}'", True
    root = require_path(location, "shards")
    info = root / "_info.json"
    if not info.is_file():
        found = find_archives(location, split, ".tar")
        return found.paths, found.served, found.whole
    try:
        splits = json.loads(info.read_text())["splits"]
        row = next(splits[word] for word in split_words(split) if word in splits)
        names = row["filenames"] if isinstance(row["filenames"], list) else expand(row["filenames"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{info} cannot be read: {error}") from error
    except StopIteration:
        raise no_split(str(info), split, splits) from None
    return [require_path(str(root / os.path.basename(name)), "shard") for name in names], f"'{info}'", False


class Reader:
    """Turns the files of one key into a sample: which extension is the image, which the target.

    `target_key` names extensions, each with a path into its JSON; those separated by `;` are alternatives, the first
    that a sample has, those separated by `,` are several fields of one target.
    """

    def __init__(
        self, image_key: str | None, target_key: str, class_map: Any, num_classes: int | None, target_format: str | None
    ):
        self.images = tuple(image_key.lower().split(";")) if image_key else _IMAGE_KEYS
        self.choices = [[part.strip() for part in choice.split(",")] for choice in target_key.split(";")]
        self.wanted = {part.partition("/")[0].lower() for choice in self.choices for part in choice}
        several = max(len(choice) for choice in self.choices) > 1
        self.form = target_format or ("multihot" if several else "number")
        self.guess = target_format is None and not several
        self.class_map, self.num_classes = class_map, num_classes
        self.targets = Targets(self.form, class_map, num_classes, self.choices[0])

    def group(
        self, members: Iterator[Member], left_out: Counter[str] | None = None
    ) -> Iterator[tuple[str, Member, dict[str, Member]]]:
        """(key, image, target files by extension) of each run of members that share a key; those that have a target
        and no image are counted.
        """
        seen = (member for member in members if not is_hidden(member.name))
        for key, files in groupby(seen, lambda member: _parted(member.name)[0]):
            image, targets = None, dict[str, Member]()
            for member in files:
                extension = _parted(member.name)[1]
                if extension in self.images:
                    image = member
                elif extension in self.wanted:
                    targets[extension] = member
            if image is not None:
                yield key, image, targets
            elif targets and left_out is not None:
                left_out["labels without an image"] += 1

    def cell(self, key: str, fd: int, files: dict[str, Member]) -> Any:
        """The target cell of a sample; raises `DataError` for one that has none."""
        for choice in self.choices:
            if all(part.partition("/")[0].lower() in files for part in choice):
                values = [self._field(key, part, fd, files) for part in choice]
                return values[0] if len(values) == 1 else values
        there = f"; it has {', '.join(sorted(files))}" if files else ""
        fields = " or ".join(", ".join(choice) for choice in self.choices)
        raise DataError(f"sample '{key}' has no target '{fields}'{there}; name it with target_key")

    def _field(self, key: str, part: str, fd: int, files: dict[str, Member]) -> Any:
        extension, _, path = part.partition("/")
        member = files[extension.lower()]
        raw = os.pread(fd, min(member.size, 1 << 20), member.offset)
        try:
            text = raw.decode().strip()
            value: Any = json.loads(text) if extension.lower() == "json" else text
            return nested(value, path) if path else value
        except (ValueError, RecursionError, DataError) as error:
            raise DataError(f"'{key}.{extension}', field '{part}' is not readable as a target: {error}") from error

    def settle(self, cells: list[Any]) -> None:
        """Find the form where none was asked for (lists are several labels), and the classes."""
        listed = next((cell for cell in cells if isinstance(cell, list)), None)
        if self.guess and listed is not None:
            self.form, self.guess = "labels", False
            self.targets = Targets("labels", self.class_map, self.num_classes, self.choices[0])
            if self.num_classes and self.targets.numbers is None:
                self.targets.numbers = {str(number): number for number in range(self.num_classes)}
                self.targets.names = list(self.targets.numbers)
        self.targets.learn(cells)

    def label(self, key: str, cell: Any) -> Any:
        """The target of a cell."""
        try:
            return self.targets.read(cell)
        except DataError as error:
            hint = "" if self.targets.numbers else "; pass class_map, or target_format=class for names"
            raise DataError(f"sample '{key}': {error}{hint}") from error


def _parted(name: str) -> tuple[str, str]:
    """The key of a file, and its extension in lower case: "a/b.seg.png" -> ("a/b", "seg.png")."""
    folder, name = os.path.split(name)
    stem, _, extension = name.partition(".")
    return f"{folder}/{stem}" if folder else stem, extension.lower()


def wds_source(
    location: str,
    split: str = TRAIN,
    image_key: str | None = None,
    target_key: str = "cls",
    target_format: str | None = None,
    class_map: Any = None,
    num_classes: int | None = None,
    streaming: bool = False,
    shuffle: int = 4096,
    num_samples: int | None = None,
) -> Source | StreamSource:
    """Open shards: `wds:/data/train-{000..146}.tar`, or a folder of them.

    Args:
        image_key: extensions of the image, separated by `;`; any image extension by default.
        target_key: extension of the target: `cls` (a class number, or a name in class_map), or `json/field`;
            `cls;json/label` are alternatives, `json/red,json/round` several fields of 0 and 1.
        target_format: as for `csv:`; by default class numbers, or several labels where a list stands.
        streaming: read shards from front to back with a shuffle buffer instead of by index.
        num_samples: how many a stream has, which it does not know by itself.
    """
    shards, served, whole = find_shards(location, split)
    reader = Reader(image_key, target_key, class_map, num_classes, target_format)
    source = WdsStream(shards, reader, shuffle, num_samples) if streaming else WdsSource(shards, reader)
    source.served, source.whole = served, whole
    return source


class WdsSource(Source):
    """Shards with random access: 24 bytes a sample beside its key."""

    def __init__(self, shards: list[Path], reader: Reader):
        self.files = ArchiveFiles(shards)
        which, offsets, sizes = array("i"), array("q"), array("q")
        keys, cells, left_out = [], [], Counter[str]()
        for number, shard in enumerate(shards):
            fd = os.open(shard, os.O_RDONLY)
            try:
                for key, image, files in reader.group(read_members(fd, 0, os.fstat(fd).st_size, []), left_out):
                    cells.append(reader.cell(key, fd, files))
                    keys.append(key)
                    which.append(number)
                    offsets.append(image.offset)
                    sizes.append(image.size)
            finally:
                os.close(fd)
        if not keys:
            raise DataError(f"no images in the {len(shards)} shards; looked for {', '.join(reader.images)}")
        reader.settle(cells)
        targets = [reader.label(key, cell) for key, cell in zip(keys, cells)]
        builder = IndexBuilder()
        for key, offset, size in zip(keys, offsets, sizes):
            builder.add(key, -1, offset, size)
        self.index, self.which = builder.build(), np.array(which, np.int32)
        self._targets, self.left_out = np.array(targets, reader.targets.dtype), dict(left_out)
        reader.targets.tell(self)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Sample:
        assert self.index.offsets is not None and self.index.sizes is not None
        place, size = int(self.index.offsets[index]), int(self.index.sizes[index])
        target = self._targets[index]
        data = self.files.read(int(self.which[index]), place, size)
        return Sample(data, target.copy() if target.ndim else target.item(), self.index.name(index))

    def key(self, index: int) -> str:
        return self.index.name(index)

    def place(self, index: int) -> str:
        assert self.index.offsets is not None
        return f"{real_place(self.files.paths[self.which[index]])}:{self.index.offsets[index]}"

    def size(self, index: int) -> int:
        assert self.index.sizes is not None
        return int(self.index.sizes[index])

    def targets(self) -> np.ndarray:
        return self._targets


class WdsStream(StreamSource):
    """Shards read from front to back; readers share out the shards, each shuffling through a buffer of `shuffle`
    samples.
    """

    def __init__(self, shards: list[Path], reader: Reader, shuffle: int, num_samples: int | None = None):
        self.shards, self.reader, self.shuffle, self.num_samples = shards, reader, shuffle, num_samples
        reader.settle(self._first_cell(shards[0]))
        if reader.form in ("class", "labels") and reader.class_map is None and not reader.num_classes:
            raise UsageError("a stream of shards is not read twice to find its classes; pass class_map or num_classes")
        known = (
            reader.form == "value" or reader.class_map is not None or reader.num_classes or len(reader.choices[0]) > 1
        )
        reader.targets.tell(self)
        if not known:
            self.class_names, self.num_classes = [], 0

    def __len__(self) -> int:
        return self.num_samples or super().__len__()

    def _first_cell(self, shard: Path) -> list[Any]:
        fd = os.open(shard, os.O_RDONLY)
        try:
            for key, _, files in self.reader.group(read_members(fd, 0, os.fstat(fd).st_size, [])):
                return [self.reader.cell(key, fd, files)]
            return []
        finally:
            os.close(fd)

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
            for key, image, files in self.reader.group(read_members(fd, 0, os.fstat(fd).st_size, [])):
                label = self.reader.label(key, self.reader.cell(key, fd, files))
                yield Sample(os.pread(fd, image.size, image.offset), label, key)
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
