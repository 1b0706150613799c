"""imgzoo: image models from plugins, found at run time. Importing this package imports neither torch nor a plugin."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0"

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
    from imgzoo.factory import create_model as create_model
    from imgzoo.model import ImageModel as ImageModel
    from imgzoo.model import TokenModel as TokenModel


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'imgzoo' has no attribute '{name}'")
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        if error.name != home.partition(".")[0]:
            raise
        from imgzoo.errors import MissingDependencyError

        package = home.replace("_", "-")
        raise MissingDependencyError(f"imgzoo.{name} comes with {package}: pip install {package}") from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
