"""The training loop that a configuration names: the standard one, or a plugin's."""

from __future__ import annotations

from functools import partial
from typing import Any

from imgzoo_train.config.settings import Config


def trainer(config: Config) -> Any:
    """`train(config, resume=..., quiet=...)` of the registered trainer."""
    from imgzoo.registry import registry

    spec = registry("trainers").resolve(config.run.trainer or "standard")
    return partial(spec.load(), **spec.kwargs) if spec.kwargs else spec.load()
