"""Open a model by name, by saved folder, by run folder, or by deployed file."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgzoo.errors import ImgzooWarning, UsageError, WeightsError
from imgzoo.loading.source import means_folder


def weights_argument(text: str) -> bool | str:
    """The `--pretrained` text as `create_model` takes it: '' is no weights, 'true' the default tag's.

    A run folder stands for its best model.
    """
    known = {"": False, "false": False, "true": True}.get(text.lower())
    if known is None and (Path(text) / "best" / "config.json").is_file():
        return f"local-dir:{Path(text) / 'best'}"
    return text if known is None else known


def model_folder(text: str) -> Path | None:
    """The hub-layout folder that `text` names: itself, or the `best/` of a run folder; None when it is no folder, or
    the name of a model.

    Raises `UsageError` for a folder that holds no model.
    """
    path = Path(text.removeprefix("local-dir:"))
    if not path.is_dir() or not (text.startswith("local-dir:") or means_folder(text)):
        return None
    for folder in (path, path / "best"):
        if (folder / "config.json").is_file():
            return folder
    raise UsageError(f"'{text}' holds no model: there is neither a config.json nor a best/ folder in it")


def open_split(source: str, split: str, task: str, **given: Any) -> Any:
    """A split of a data source; of one that has others only, the `SplitError` says how to name one."""
    from imgzoo_data import create_dataset
    from imgzoo_data.sources.layout import SplitError

    try:
        return create_dataset(source, split, task=task, **given)
    except SplitError as error:
        raise SplitError(f"{error}; name one with --split", error.found) from error


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Say of a sample that cannot be used what the command offers, where nobody said it inside."""
    from imgzoo_data.loader import BadSampleError

    try:
        yield
    except BadSampleError as error:
        raise error if error.advice else BadSampleError(error.found, advice) from error


def advised(batches: Iterable[Any], advice: str) -> Iterator[Any]:
    """`batches`, with what the command offers in the error about one that cannot be read."""
    with advising(advice):
        yield from batches


def examined(source: str, split: str) -> str:
    """What to do about bad samples where every image counts."""
    return f"none can be left out here; `imgzoo data check {source} --split {split}` lists all of them"


def heads_of(model: Any) -> tuple[str, ...]:
    """What the names of the classifier's parameters begin with."""
    return tuple(f"{head}." for head in model._heads())


def open_ready(
    text: str,
    pretrained: str = "true",
    engine: str | None = None,
    *,
    precision: str = "fp32",
    img_size: int | None = None,
    batch: int = 1,
    task: str | None = None,
) -> Any:
    """As `open_model`, and deployed with an engine where one is named, for batches of `batch`.

    With `img_size` it is built for another size of images: tables of its weights are resized where it has some.
    Raises `UsageError` where `text` is a deployed file, which has its engine and its size.
    """
    from .deployed import Deployed
    from .deployment import deploy
    from .parity import example_images
    from .sizes import check_size

    model = open_model(text, pretrained, task=task, img_size=img_size)
    warn_of_chance(model, text)
    if isinstance(model, Deployed):
        if engine is not None:
            raise UsageError(f"{text} is deployed with {model.engine}: leave --engine out")
        return model
    if engine is None:
        return model
    if img_size is not None:
        check_size(model, img_size)
    return deploy(model, engine, precision=precision, example=example_images(model, batch, seen_size(model, img_size)))


def warn_of_chance(model: Any, text: str) -> None:
    """Warn of a model that learned nothing, where its answers are to be used."""
    if getattr(model, "load_report", None) is None and hasattr(model, "load_report"):
        warnings.warn(f"{text} was built without weights: what it answers is chance", ImgzooWarning, stacklevel=3)


def seen_size(model: Any, img_size: int | None = None) -> tuple[int, int, int]:
    """(C, H, W) of the images that a model is scored on: what was asked for, or the size its weights test best at."""
    from imgzoo_data import resolve_data_config

    return resolve_data_config(model, img_size=img_size, use_test_size=img_size is None).input_size


def open_model(text: str, pretrained: str = "true", *, task: str | None = None, **options: Any) -> Any:
    """A model to be used as it is: a name with `pretrained`, a folder with its own weights, or a deployed file.

    `task` is what a bare file of weights answers, which cannot say it: a `UsageError` for a model that says otherwise.

    Raises `WeightsError` where the weights bring no classifier for its classes: what it would answer means nothing.
    """
    from imgzoo import create_model
    from imgzoo_data.info import infer_imagenet_subset
    from imgzoo_train.engines.files import is_deployed

    if is_deployed(Path(text)):
        from .deployed import load_deployed

        return _answering(load_deployed(text), task, text, pretrained)
    folder = model_folder(text)
    if folder is not None:
        model = create_model(f"local-dir:{folder}", pretrained=True, **options)
    else:
        model = create_model(text, pretrained=weights_argument(pretrained), **options)
    report = getattr(model, "load_report", None)
    if report is not None and any(name.startswith(heads_of(model)) for name in report.initialized):
        held = f"a classifier of {report.classes} classes" if report.classes else "no classifier"
        raise WeightsError(
            f"'{report.file}' has {held}, {text} needs one of {model.num_classes}: train it first with "
            f"imgzoo train --pretrained {pretrained if folder is None else text}"
        )
    model = _answering(model, task, text, pretrained)
    bare = not model.class_names and model.task == "classification" and Path(pretrained).is_file()
    if bare and (subset := infer_imagenet_subset(model)):
        warnings.warn(
            f"'{pretrained}' names no classes: its {model.num_classes} are taken as those of {subset}",
            ImgzooWarning,
            stacklevel=2,
        )
    return model


def _answering(model: Any, task: str | None, text: str, pretrained: str) -> Any:
    """The model, with the task where its weights are a bare file."""
    from .answers import KINDS

    if task is not None and task != model.task:
        if model.task != "classification" or model.class_names or not Path(pretrained).is_file():
            raise UsageError(f"{text} answers with {KINDS[model.task]}; leave out --task {task}")
        model.task = task
    return model
