"""Open a model by name, by saved folder, or by run folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from imgzoo.errors import UsageError, WeightsError
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


def heads_of(model: Any) -> tuple[str, ...]:
    """What the names of the classifier's parameters begin with."""
    return tuple(f"{head}." for head in model._heads())


def open_model(text: str, pretrained: str = "true", **options: Any) -> Any:
    """A model to be used as it is: a name with `pretrained`, or a folder with its own weights.

    Raises `WeightsError` where the weights bring no classifier for its classes: what it would answer means nothing.
    """
    from imgzoo import create_model
    from imgzoo_data.info import infer_imagenet_subset

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
    if not model.class_names and Path(pretrained).is_file() and (subset := infer_imagenet_subset(model)):
        warnings.warn(
            f"'{pretrained}' names no classes: its {model.num_classes} are taken as those of {subset}", stacklevel=2
        )
    return model
