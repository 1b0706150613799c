"""What a tree of folders means: which part of it is a split, and which folder names are the classes.

Shared by folders on disk and folders inside archives. What cannot be decided is refused with the option that decides.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from imgzoo.errors import DataError, UsageError
from imgzoo.text import escaped

from .classes import names_of, natural_sorted

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_SYNONYMS = {
    TRAIN: ("train", "training", "trn"),
    VALIDATION: ("validation", "val", "valid", "validate", "eval", "evaluation", "dev", "development"),
    TEST: ("test", "testing", "tst"),
}
SPLITS = {word: split for split, words in _SYNONYMS.items() for word in words}
_FOLDER = re.compile(rf"({'|'.join(SPLITS)})(?:[ _-]?(?:set|data|images|imgs|split|\d{{4}}))?")
_FILE = re.compile(rf"({'|'.join(sorted(SPLITS, key=len, reverse=True))})(?:$|[-_. \d])")
CLASS_FROM = ("auto", "first", "last")
NO_IMAGE = frozenset((
    ".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".rst", ".xml", ".yaml", ".yml", ".toml", ".html", ".htm",
    ".py", ".ipynb", ".pdf", ".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".db", ".ini", ".log", ".pkl", ".sh",
    ".bat", ".url", ".lnk", ".doc", ".docx", ".xls", ".xlsx", ".js", ".css", ".cls", ".idx",
))  # fmt: skip
"""Endings of files that lie beside images and are none."""
SHOWN = 5
"""Names that a sentence lists."""
MOST_READ = 1 << 27
"""Bytes of images that a start reads to compare them."""


class SplitError(UsageError):
    """The source has no such split; `found` names those it has."""

    def __init__(self, message: str, found: Sequence[str] = ()):
        super().__init__(message)
        self.found = tuple(found)


def split_words(split: str) -> tuple[str, ...]:
    """The synonyms of a split, itself first: "val" -> ("val", "validation", "valid", ...)."""
    canonical = SPLITS.get(split.lower())
    return (split, *(word for word in _SYNONYMS[canonical] if word != split)) if canonical else (split,)


def split_of(name: str) -> str | None:
    """The split that a folder or a cell is named after, without case: "Training" -> "train", "val2017" ->
    "validation".
    """
    found = _FOLDER.fullmatch(name.strip().lower())
    return SPLITS[found[1]] if found else None


def split_of_file(stem: str) -> str | None:
    """The split that a file name begins with: "train-00012" -> "train"."""
    found = _FILE.match(stem.lower())
    return SPLITS[found[1]] if found else None


def canonical_split(split: str) -> str:
    """The split that a word means, or the word itself."""
    return split_of(split) or split


def no_split(what: str, split: str, found: Iterable[str]) -> SplitError:
    """The error of a source that has other splits only."""
    names = list(found)
    return SplitError(f"{what} has no split '{split}'; it has {', '.join(names) or 'no named split'}", names)


def both_serve(what: str, serving: Sequence[str], split: str) -> SplitError:
    """The error of a source of which several parts are named after one split."""
    return SplitError(f"{what}: {' and '.join(serving)} both serve the split '{split}'; name one as the split", serving)


def choose_split(kinds: Mapping[str, str], split: str, what: str) -> str | None:
    """The folder that serves a split, None where no folder is named after any split, so that all is one.

    `kinds` holds the folders side by side: "folders" has folders below, "files" only images, "" nothing of interest.
    Raises `SplitError` where there are other splits only, `UsageError` where a name may be a split or a class.
    """
    named = {name: found for name in kinds if (found := split_of(name))}
    if split in kinds and split not in named:
        return split
    if not named:
        if split_of(split):
            return None
        raise no_split(what, split, ())
    classes = [name for name, kind in kinds.items() if name not in named and kind]
    if classes and not any(kinds[name] == "folders" for name in named):
        beside = ", ".join(natural_sorted(classes)[:3])
        raise UsageError(
            f"{what}: '{next(iter(named))}' may be a split or a class beside {beside}; "
            "add search_split=false to read every folder as a class"
        )
    wanted = canonical_split(split)
    serving = natural_sorted(name for name, found in named.items() if found == wanted)
    if len(serving) > 1:
        serving = [name for name in serving if name == split] or serving
    if len(serving) > 1:
        raise both_serve(what, serving, split)
    if not serving:
        raise no_split(what, split, natural_sorted(named))
    return serving[0]


def folder_served(chosen: str, names: Iterable[str]) -> str:
    """The folder that serves a split, in words, and those beside it that are named after the same one."""
    name, wanted = os.path.basename(chosen), split_of(os.path.basename(chosen))
    others = natural_sorted(each for each in names if each != name and wanted and split_of(each) == wanted)
    return f"folder '{chosen}'" + (f", not {' or '.join(map(repr, others))} beside it" if others else "")


def kinds_of(folders: Iterable[str]) -> dict[str, str]:
    """The kinds that `choose_split` takes, of the first parts of paths of folders that hold images."""
    kinds: dict[str, str] = {}
    for folder in folders:
        first, _, rest = folder.partition("/")
        if first:
            kinds[first] = "folders" if rest else kinds.get(first, "files")
    return kinds


def split_prefix(folders: Iterable[str], split: str, what: str) -> str | None:
    """The path of the folder that serves a split among paths of folders with images; None where all is one split.

    A single folder that holds all the others is looked into.
    """
    folders = set(folders)
    base = ""
    while True:
        inside = {f[len(base) :] for f in folders}
        kinds = kinds_of(inside)
        only = next(iter(kinds), "")
        if len(kinds) == 1 and "" not in inside and kinds[only] == "folders" and not split_of(only) and only != split:
            base += f"{only}/"
            continue
        found = choose_split(kinds, split, what)
        return None if found is None else base + found


class Folder(NamedTuple):
    """A folder: its path below the root ("" is the root itself), its images, and its other files by ending."""

    name: str
    images: int
    unread: Counter[str]


class Classes(NamedTuple):
    """What folders mean: class number by folder (-1 for none), class names, and the rule in words."""

    of: dict[str, int]
    names: list[str]
    rule: str
    notes: list[str]


def clean_name(name: str) -> str:
    """A class name as it is shown and saved: composed, trimmed, what is not printable (or not UTF-8) escaped."""
    return escaped(unicodedata.normalize("NFC", name).strip()).replace("\n", "\\n").replace("\t", "\\t")


def classify(
    folders: Sequence[Folder], what: str, numbers: Mapping[str, int] | None = None, class_from: str = "auto",
    strict: bool = True,
) -> Classes:  # fmt: skip
    """The classes of a tree of folders: the innermost folder's name, or the outermost's.

    Where these give other classes and folder names repeat, `class_from` must say which. `strict` refuses a class
    whose files are all of unread kinds.
    """
    if class_from not in CLASS_FROM:
        raise UsageError(f"{what}: class_from '{class_from}' is unknown; use {', '.join(CLASS_FROM)}")
    paths = [folder.name for folder in folders if folder.images and folder.name]
    base = _shared_wrapper(paths)
    last = {path: os.path.basename(path) for path in paths}
    first = {path: path[len(base) :].split("/")[0] for path in paths}
    rule = f"the {'innermost' if class_from == 'last' else 'outermost'} folder" if class_from != "auto" else ""
    if class_from == "auto":
        _refuse_ambiguous(first, last, what)
        rule = "the innermost folder" if any("/" in path[len(base) :] for path in paths) else "the folder's name"
    chosen = first if class_from == "first" else last
    names = {raw: clean_name(raw) for raw in set(chosen.values())}
    refuse_twins(names.items(), f"{what}: the class folders")
    if numbers is None:
        if strict:
            _refuse_vanished(folders, first, last, what)
        numbers = {name: i for i, name in enumerate(natural_sorted(names.values()))}
        notes = case_twins(numbers)
    else:
        rule, notes = f"{rule}, by the class map", []
    notes += _empty(folders, {*numbers, *names, *names.values()}, base if class_from == "first" else None)
    of = {path: numbers.get(names[raw], numbers.get(raw, -1)) for path, raw in chosen.items()}
    return Classes(of, names_of(numbers), rule if paths else "", notes)


def _shared_wrapper(paths: Sequence[str]) -> str:
    """The folder (with its slash) that all the others lie in: "images/" of images/cat, images/dog."""
    if len(paths) < 2:
        return ""
    shared = os.path.commonpath(paths)
    return f"{shared}/" if shared and shared not in paths else ""


def _refuse_ambiguous(first: Mapping[str, str], last: Mapping[str, str], what: str) -> None:
    """Raise where the innermost and the outermost folders give other classes and names repeat or nest."""
    parents: dict[str, set[str]] = defaultdict(set)
    for path, leaf in last.items():
        if first[path] != leaf:
            parents[leaf].add(os.path.dirname(path))
    repeated = natural_sorted(leaf for leaf, found in parents.items() if len(found) > 1)
    nested = natural_sorted(
        leaf for path, leaf in last.items() if first[path] != leaf and _above(os.path.dirname(path), last)
    )
    if not repeated and not nested:
        return
    inner, outer = natural_sorted(set(last.values())), natural_sorted(set(first.values()))
    raise UsageError(
        f"{what}: folder names of several levels may be the classes; add class_from=first for {_some(outer)}, or "
        f"class_from=last for {_some(inner)}"
    )


def _above(folder: str, known: Mapping[str, str]) -> bool:
    """Whether a folder or one above it holds images itself."""
    while folder:
        if folder in known:
            return True
        folder = os.path.dirname(folder)
    return False


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def refuse_twins(names: Iterable[tuple[str, str]], what: str) -> None:
    """Raise `DataError` where two of the pairs (as it stands, as a class name) have one class name."""
    seen: dict[str, str] = {}
    for raw, name in names:
        other = seen.setdefault(name, raw)
        if other != raw:
            raise DataError(
                f"{what} {raw!r} and {other!r} differ by spaces or by how letters are composed; rename one, or give a "
                "class_map"
            )


def case_twins(names: Iterable[str]) -> list[str]:
    """A note on classes whose names differ by case alone, where there are any."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.casefold()].append(name)
    twins = [" and ".join(group) for group in groups.values() if len(group) > 1]
    return [f"classes that differ by case alone: {', '.join(twins)}"] if twins else []


def _refuse_vanished(folders: Sequence[Folder], first: Mapping[str, str], last: Mapping[str, str], what: str) -> None:
    """Raise for a class folder whose files are all of kinds that are not read: the class would disappear."""
    known = {*first.values(), *last.values()}
    for folder in folders:
        lost = {ending: count for ending, count in folder.unread.items() if ending not in NO_IMAGE}
        inside = any(path.startswith(f"{folder.name}/") for path in last)
        if folder.name and lost and not folder.images and not inside and not known & set(folder.name.split("/")):
            raise DataError(
                f"{what}: the class '{os.path.basename(folder.name)}' would disappear: its {endings(lost)} are no "
                "images that are read; convert them, name the ending with extensions=, or move the folder away"
            )


def _empty(folders: Sequence[Folder], known: Set[str], base: str | None) -> list[str]:
    """A note on folders that hold no image and would have been a class of their own; `base` is the folder whose entries
    are the classes, None where the innermost folders are.
    """
    above = {path for folder in folders for path in _parents(folder.name)}
    leaves = (folder.name for folder in folders if folder.name not in above and not folder.images)
    called = (path.removeprefix(base).split("/")[0] if base is not None else os.path.basename(path) for path in leaves)
    empty = natural_sorted({clean_name(name) for name in called if name} - known)
    if not empty:
        return []
    more = f" and {len(empty) - SHOWN:,} others" if len(empty) > SHOWN else ""
    shown = ", ".join(map(repr, empty[:SHOWN]))
    return [f"no images in the folder{'s' * (len(empty) > 1)} {shown}{more}: no class"]


def _parents(path: str) -> Iterator[str]:
    """The folders above a path, "" (the root) at last."""
    while path:
        path = os.path.dirname(path)
        yield path


def no_images(
    where: str, wanted: Iterable[str], folders: Iterable[Folder], numbers: Mapping[str, int] | None
) -> DataError:
    """The error of a tree that serves no image: there is none, or none lies in a folder of the class map."""
    there = natural_sorted({os.path.basename(folder.name) for folder in folders if folder.images})
    if numbers is None or not there:
        return DataError(f"no images {where}; looked for {', '.join(wanted)}")
    return DataError(f"no class of the map {where}: the map has {_some([*numbers])}, the folders are {_some(there)}")


def endings(counts: Mapping[str, int]) -> str:
    """Numbers of files by ending: "12 files .xyz, 1 file without ending"."""
    return ", ".join(
        f"{count} file{'s' * (count != 1)} {ending or 'without ending'}" for ending, count in sorted(counts.items())
    )


def left_out(folders: Iterable[Folder]) -> dict[str, int]:
    """Unread files of all folders by ending."""
    total: Counter[str] = Counter()
    for folder in folders:
        total.update(folder.unread)
    return {f"files {ending}" if ending else "files without ending": count for ending, count in sorted(total.items())}
