"""Optimizers, schedules, parameter groups and clipping for imgzoo. Importing this package does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgzoo.door import lazy_door

_HOME = {  # public name -> module that holds it
    "Lookahead": "imgzoo_optim.lookahead",
    "Optimizer": "imgzoo_optim.base",
    "PlateauSchedule": "imgzoo_optim.plateau",
    "SAM": "imgzoo_optim.sam",
    "Schedule": "imgzoo_optim.schedules",
    "clip_gradients": "imgzoo_optim.clip",
    "create_optimizer": "imgzoo_optim.factory",
    "create_scheduler": "imgzoo_optim.schedules",
    "decay_groups": "imgzoo_optim.param_groups",
    "explain": "imgzoo_optim.param_groups",
    "layer_scales": "imgzoo_optim.param_groups",
    "optimizer_options": "imgzoo_optim.factory",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    __version__: str

    from imgzoo_optim.base import Optimizer as Optimizer
    from imgzoo_optim.clip import clip_gradients as clip_gradients
    from imgzoo_optim.factory import create_optimizer as create_optimizer
    from imgzoo_optim.factory import optimizer_options as optimizer_options
    from imgzoo_optim.lookahead import Lookahead as Lookahead
    from imgzoo_optim.param_groups import decay_groups as decay_groups
    from imgzoo_optim.param_groups import explain as explain
    from imgzoo_optim.param_groups import layer_scales as layer_scales
    from imgzoo_optim.plateau import PlateauSchedule as PlateauSchedule
    from imgzoo_optim.sam import SAM as SAM
    from imgzoo_optim.schedules import Schedule as Schedule
    from imgzoo_optim.schedules import create_scheduler as create_scheduler
else:
    __getattr__, __dir__ = lazy_door(__name__, _HOME)
