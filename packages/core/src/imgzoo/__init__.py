"""imgzoo: image models from plugins, found at run time. Importing this package imports neither torch nor a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .door import lazy_door

_HOME = {  # public name -> module that holds it
    "create_model": "imgzoo.factory",
    "list_models": "imgzoo.models",
    "list_weights": "imgzoo.models",
    "get_spec": "imgzoo.models",
    "is_model": "imgzoo.models",
    "plugins": "imgzoo.registry",
    "register": "imgzoo.registry",
    "register_model": "imgzoo.session",
    "reload": "imgzoo.registry",
    "prefer": "imgzoo.registry",
    "save_model": "imgzoo.loading",
    "load_checkpoint": "imgzoo.loading",
    "ImageModel": "imgzoo.model",
    "TokenModel": "imgzoo.model",
    "create_optimizer": "imgzoo_optim",
    "create_scheduler": "imgzoo_optim",
    "create_dataset": "imgzoo_data",
    "create_transform": "imgzoo_data",
    "create_loader": "imgzoo_data",
    "resolve_data_config": "imgzoo_data",
    "create_loss": "imgzoo_train",
    "deploy": "imgzoo_train",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    __version__: str

    from imgzoo.factory import create_model as create_model
    from imgzoo.loading import load_checkpoint as load_checkpoint
    from imgzoo.loading import save_model as save_model
    from imgzoo.model import ImageModel as ImageModel
    from imgzoo.model import TokenModel as TokenModel
    from imgzoo.models import get_spec as get_spec
    from imgzoo.models import is_model as is_model
    from imgzoo.models import list_models as list_models
    from imgzoo.models import list_weights as list_weights
    from imgzoo.registry import plugins as plugins
    from imgzoo.registry import prefer as prefer
    from imgzoo.registry import register as register
    from imgzoo.registry import reload as reload
    from imgzoo.session import register_model as register_model
    from imgzoo_data import create_dataset as create_dataset
    from imgzoo_data import create_loader as create_loader
    from imgzoo_data import create_transform as create_transform
    from imgzoo_data import resolve_data_config as resolve_data_config
    from imgzoo_optim import create_optimizer as create_optimizer
    from imgzoo_optim import create_scheduler as create_scheduler
    from imgzoo_train import create_loss as create_loss
    from imgzoo_train import deploy as deploy
else:
    __getattr__, __dir__ = lazy_door(__name__, _HOME)
