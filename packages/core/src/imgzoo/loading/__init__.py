"""Weights: where they come from, whether they may be used, how they enter a model, how they are saved."""

# pyright: reportUnsupportedDunderAll=false
from __future__ import annotations

from typing import TYPE_CHECKING

from imgzoo.door import lazy_door

_HOME = {  # public name -> module that holds it
    "LoadReport": "imgzoo.loading.load",
    "ModelSource": "imgzoo.loading.source",
    "load_checkpoint": "imgzoo.loading.checkpoint",
    "locate": "imgzoo.loading.source",
    "save_model": "imgzoo.loading.save",
}

__all__ = [*_HOME]

if TYPE_CHECKING:
    from .checkpoint import load_checkpoint as load_checkpoint
    from .load import LoadReport as LoadReport
    from .save import save_model as save_model
    from .source import ModelSource as ModelSource
    from .source import locate as locate
else:
    __getattr__, __dir__ = lazy_door(__name__, _HOME)
