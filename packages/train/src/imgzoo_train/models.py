"""Open a model by name, by saved folder, or by run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imgzoo.errors import UsageError


def weights_argument(text: str) -> bool | str:
    """The `--pretrained` text as `create_model` takes it: '' is no weights, 'true' the default tag's."""
    return {"": False, "false": False, "true": True}.get(text.lower(), text)


def model_folder(text: str) -> Path | None:
    """The hub-layout folder that `text` names: itself, or the `best/` of a run folder; None when it is no folder.

    Raises `UsageError` for a folder that holds no model.
    """
    path = Path(text.removeprefix("local-dir:"))
    if not path.is_dir():
        return None
    for folder in (path, path / "best"):
        if (folder / "config.json").is_file():
            return folder
    raise UsageError(f"'{text}' holds no model: there is neither a config.json nor a best/ folder in it")


def open_model(text: str, pretrained: str = "true", **options: Any) -> Any:
    """A model with weights: a name with `pretrained`, or a folder with its own weights."""
    from imgzoo import create_model

    folder = model_folder(text)
    if folder is not None:
        return create_model(f"local-dir:{folder}", pretrained=True, **options)
    return create_model(text, pretrained=weights_argument(pretrained), **options)


def class_names_of(model: Any) -> list[str]:
    """Names of the model's classes: its own, ImageNet's when it has as many, or numbers."""
    from imgzoo_data.info import class_names

    own = getattr(model, "class_names", None) or class_names(model)
    count = int(model.num_classes)
    return [str(name) for name in own] if own and len(own) == count else [str(index) for index in range(count)]
