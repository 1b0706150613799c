"""Which image sizes a model takes."""

from __future__ import annotations

from typing import Any

import torch

from imgzoo.errors import ImgzooError, UsageError
from imgzoo.text import first_line

from .modes import evaluating


@torch.no_grad()
def check_size(model: Any, *sizes: Any) -> None:
    """Let the model see an image of each size (height and width); raises `UsageError` for one that it cannot take."""
    parameter = next(model.parameters(), torch.zeros(0, device="cpu"))
    cfg = model.pretrained_cfg
    for size in sizes:
        height, width = (size, size) if isinstance(size, int) else size
        try:
            with evaluating(model):
                model(torch.zeros(1, model.in_chans, height, width, device=parameter.device, dtype=parameter.dtype))
        except ImgzooError:
            raise
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            reason = first_line(error).partition(": use ")[0]  # options of Python, which no command has
            name = getattr(model, "name", "the model")
            own = tuple(cfg["input_size"][1:])
            other = f"; its own size is {own[0]}x{own[1]}, and --img-size builds it for another where it can"
            raise UsageError(
                f"{name} cannot take images of {height}x{width} ({reason}){'' if own == (height, width) else other}"
            ) from error
