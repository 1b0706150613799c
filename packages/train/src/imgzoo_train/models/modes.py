"""Training mode: a caller's network keeps its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Let a network evaluate while this lasts; then each of its modules is in the mode of before, frozen norms too."""
    training = {module: module.training for module in model.modules()}
    own = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(own)
        for module, mode in training.items():
            module.training = mode
