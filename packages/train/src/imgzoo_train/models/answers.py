"""What a model answers - its task, its classes by name - and how data with classes of its own lines up with it.

One function, `align`, stands between any source and any model: by name, or refused by name.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from imgzoo.errors import ImgzooWarning, UsageError
from imgzoo.text import counted

ACTIVATIONS = {"classification": "softmax", "multilabel": "sigmoid", "regression": "identity"}
"""Task -> what turns the network's output into the answer."""
KINDS = {
    "classification": "one label an image",
    "multilabel": "several labels an image",
    "regression": "numbers to predict",
}
SHOWN = 5


@dataclass(frozen=True)
class Answer:
    """The task, the number of outputs, and a name for each; no names where nobody gave them."""

    task: str
    count: int
    names: tuple[str, ...] = ()
    synsets: tuple[str, ...] = ()
    """ImageNet's ids of the classes, where the model is known to be one of its."""
    columns: tuple[int, ...] = ()
    """The outputs of the network that these are; all of them when empty."""

    @property
    def activation(self) -> str:
        return ACTIVATIONS[self.task]

    @property
    def labels(self) -> list[str]:
        """A text for each output: its name, or its number."""
        return list(self.names) or [str(number) for number in range(self.count)]

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """(B, count) outputs of the network -> probabilities, or values."""
        output = output.float()
        if self.activation == "softmax":
            return output.softmax(1)
        return output.sigmoid() if self.activation == "sigmoid" else output

    def record(self) -> dict[str, Any]:
        """As it is written beside exported models."""
        names = {"classes": list(self.names)} if self.names else {}
        synsets = {"synsets": list(self.synsets)} if self.synsets else {}
        return {"task": self.task, "activation": self.activation, **names, **synsets}


@dataclass(frozen=True)
class Alignment:
    """How a batch is scored: which outputs of the network, and which of them a class of the data is.

    The model's other classes stay in the running for one label an image. Where several may hold, and of numbers to
    predict, only outputs that the data knows are scored: what it does not label is not absent.
    """

    classes: int
    """Number of outputs that are scored."""
    columns: torch.Tensor | None = None
    """(classes,) the outputs that are scored; None for all."""
    places: torch.Tensor | None = None
    """(classes of the data,) the scored output that each one is; None where they are the same."""

    def targets(self, targets: torch.Tensor) -> torch.Tensor:
        """The data's targets of a batch as the model's."""
        if self.places is None:
            return targets
        places = self.places.to(targets.device)
        if targets.ndim == 1:
            return places[targets]
        return targets.new_zeros(len(targets), self.classes).index_copy(1, places, targets)

    def outputs(self, output: torch.Tensor) -> torch.Tensor:
        """The outputs of the network (B, count) that are scored."""
        return output if self.columns is None else output.index_select(1, self.columns.to(output.device))


def answer_of(model: Any) -> Answer:
    """What a model that `create_model` made answers: its own record, or the label set that its weights were trained on.

    Classes that are synsets are called by their words.
    """
    from imgzoo_data.info import are_synsets, infer_imagenet_subset, lemma, subset_synsets

    task, count = getattr(model, "task", "classification"), int(model.num_classes)
    names = tuple(str(name) for name in getattr(model, "class_names", None) or ())
    subset = infer_imagenet_subset(model) if task == "classification" and not names else None
    synsets = subset_synsets(subset) if subset is not None else names if are_synsets(names) else ()
    return Answer(task, count, tuple(map(lemma, synsets)) or names, synsets)


def answer_of_data(source: Any, task: str, what: str = "") -> Answer:
    """What a source asks for under a task, `what` being the model whose task it is, unless it was asked for.

    Raises `UsageError` where its labels are of another kind.
    """
    names = tuple(str(name) for name in source.class_names)
    several, numeric = bool(getattr(source, "multi_label", False)), bool(getattr(source, "numeric", False))
    if task == "regression":  # classes that are called by their number are that number
        kind, fits = KINDS["multilabel"], not several
        if fits and names != tuple(map(str, range(len(names)))):
            raise UsageError(
                f"{source.name or 'the data'} has the classes {listed(names)}, {what or '--task regression'} needs "
                "numbers: give them in a table, as csv:"
            )
        count = 1 if names else int(source.num_classes)
        names = tuple(str(name) for name in getattr(source, "value_names", ()))
    else:
        found = ("regression" if numeric else "classification", "multilabel")[several]
        kind, fits, count = KINDS[found], found == task, int(source.num_classes)
    if not fits:
        table = str(getattr(source, "rule", "")).startswith(("names in", "class numbers in"))
        lists = (
            "; ?target_format=labels after the source reads lists of names" if table and task == "multilabel" else ""
        )
        said = f"{what} answers with {KINDS[task]}" if what else f"so --task {task} does not fit it"
        raise UsageError(f"{source.name or 'the data'} has {kind}, {said}{lists}")
    if count < 1:
        raise UsageError(f"{source.name or 'the data'} has no classes: its images need labels")
    return Answer(task, count, names if len(names) == count else ())


def align(answer: Answer, data: Answer, what: str = "the model", where: str = "the data") -> Alignment:
    """How the classes of `data` lie among those that `answer` gives: by name.

    Every class of the data needs one of the model's; the model may have more. Without names on a side, as many classes
    are taken in their order, and a warning says so. Raises `UsageError` naming what has no counterpart.
    """
    if answer.task != data.task:
        raise UsageError(f"{what} answers with {KINDS[answer.task]}, {where} has {KINDS[data.task]}")
    if not (answer.names and data.names):
        return _by_number(answer, data, what, where)
    places: list[int | None] = list(range(data.count))
    if answer.names != data.names:
        tables = _spellings(answer)
        places = [_place(name, tables, what) for name in data.names]
    missing = [name for name, place in zip(data.names, places) if place is None]
    if missing:
        numbers = all(name.isdecimal() for name in data.names)
        raise UsageError(
            f"{where} has {listed(missing)}, which {what} does not know; it answers {listed(answer.names)}"
            + ("; ?target_format=number&class_map=FILE after a table names its class numbers" if numbers else "")
        )
    found = [place for place in places if place is not None]
    counts = Counter(found)
    twice = [name for name, place in zip(data.names, found) if counts[place] > 1]
    if twice:
        raise UsageError(f"{listed(twice)} of {where} are one class of {what}; merge them, or use a class_map")
    same = found == list(range(len(answer.names)))
    if answer.task != "classification":
        return Alignment(len(found), None if same else torch.tensor(found))
    columns = torch.tensor(answer.columns) if answer.columns else None
    return Alignment(len(answer.names), columns, None if same else torch.tensor(found))


def place_of(text: str, answer: Answer, what: str) -> int:
    """The output that a class is, by its name or its number. Raises `UsageError` for one that `what` does not know."""
    place = _place(text, _spellings(answer), what)
    if place is None and text.isdecimal() and int(text) < answer.count:
        place = int(text)
    if place is None:
        known = f"it answers {listed(answer.names)}, or " if answer.names else "take "
        raise UsageError(f"{what} knows no class '{text}'; {known}a number from 0 to {answer.count - 1}")
    return place


def _by_number(answer: Answer, data: Answer, what: str, where: str) -> Alignment:
    one, several = ("value", "values") if answer.task == "regression" else ("class", "classes")
    if answer.count != data.count:
        raise UsageError(
            f"{where} has {counted(data.count, one)}, {what} answers {answer.count}, and they have no common names"
        )
    if data.names and (answer.count > 1 or answer.task != "regression"):  # a single number is that one
        warnings.warn(
            f"{what} has no {one} names: its {answer.count} {several} are taken in the data's order",
            ImgzooWarning,
            stacklevel=3,
        )
    return Alignment(answer.count)


def _spellings(answer: Answer) -> list[Mapping[str, set[int]]]:
    """Ways to write a class -> the classes it may mean: as it stands, then loosely, then by one of ImageNet's words."""
    tables: list[dict[str, set[int]]] = [{}, {}, {}]
    for number, name in enumerate(answer.names):
        synset = answer.synsets[number : number + 1]
        words = name.split(", ") if synset else ()
        for table, texts in zip(tables, ({name, *synset}, {_plain(name)}, {_plain(word) for word in words})):
            for text in texts:
                table.setdefault(text, set()).add(number)
    return tables  # type: ignore[return-value]


def _place(name: str, tables: Sequence[Mapping[str, set[int]]], what: str) -> int | None:
    from imgzoo_data.info import are_synsets, lemma

    exact, loose, word = tables
    found = exact.get(name) or loose.get(_plain(name)) or word.get(_plain(name)) or set()
    if not found and are_synsets([name]):  # the model has words
        words = lemma(name)
        found = loose.get(_plain(words)) or {n for each in words.split(", ") for n in loose.get(_plain(each), ())}
    if len(found) > 1:
        raise UsageError(f"'{name}' is {len(found)} classes of {what}; name it by its synset or its whole description")
    return next(iter(found), None)


def _plain(name: str) -> str:
    """A name without case, and with a space where file names have something else."""
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


def listed(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + more
