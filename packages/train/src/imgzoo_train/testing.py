"""What imgzoo asks of a loss, a logger and a training loop, as checks of the conformance kit (`imgzoo.testing`)."""

from __future__ import annotations

import inspect
import math
import tempfile
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import UsageError
from imgzoo.testing import SkipCheck
from imgzoo_train.config.settings import Config
from imgzoo_train.loop.losses import create_loss

IMAGES, CLASSES = 6, 7
TARGETS = {
    "classes": torch.tensor([0, 3, 6, 3, 1, 2]),
    "shares of classes": torch.eye(CLASSES)[:IMAGES] * 0.6 + 0.4 / CLASSES,
    "several labels": torch.eye(CLASSES)[:IMAGES],
    "numbers": torch.linspace(-1, 1, IMAGES * CLASSES).reshape(IMAGES, CLASSES),
}


def _loss(subject: Any) -> Any:
    try:
        return create_loss(subject.name, **subject.options)
    except UsageError as error:
        raise SkipCheck(f"it needs options to be tried, examples={{'{subject}': {{...}}}}: {error}") from error


def gives_a_scalar(subject: Any) -> None:
    """`loss(output, target)` of outputs (B, C), which stay as they are, is a finite scalar with a gradient, and depends
    on the target, for one kind of target at least.
    """
    loss, said = _loss(subject), []
    for kind, target in TARGETS.items():
        output = torch.randn(IMAGES, CLASSES, generator=torch.Generator().manual_seed(1)).requires_grad_()
        try:
            value = loss(output, target)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            said.append(f"{kind}: {error}")
            continue
        if not isinstance(value, torch.Tensor) or value.ndim:
            shape = tuple(getattr(value, "shape", ()))
            raise AssertionError(f"for {kind} it gives a {type(value).__name__} {shape}, and no scalar")
        if not torch.isfinite(value):
            raise AssertionError(f"for {kind} it gives {value.item()}")
        value.backward()
        given = torch.randn(IMAGES, CLASSES, generator=torch.Generator().manual_seed(1))
        if not torch.equal(output, given):
            raise AssertionError(f"for {kind} it writes into the outputs that it is given")
        if torch.equal(value.detach(), loss(given, target.roll(1, 0)).detach()):
            raise AssertionError(f"for {kind} other targets make no difference")
        if output.grad is None or not torch.isfinite(output.grad).all() or not output.grad.any():
            raise AssertionError(f"for {kind} its gradient is missing, zero or not finite")
        return
    raise AssertionError(f"it takes no kind of target: {'; '.join(said)}")


def takes_rows(subject: Any) -> None:
    """`target(folder=..., config=...)` is a sink with `log(row)` and `end(summary)`; `close()` may be there."""
    with tempfile.TemporaryDirectory() as folder:
        sink = subject.spec.load()(folder=Path(folder), config=Config(), **subject.spec.kwargs)
        missing = [name for name in ("log", "end") if not callable(getattr(sink, name, None))]
        if missing:
            raise AssertionError(f"a {type(sink).__name__} has no {missing[0]}(), so its rows would go nowhere")
        sink.log({"kind": "train", "step": 1, "epoch": 0.5, "loss": 1.25, "lr": 0.1, "seconds": 0.2})
        sink.log({"kind": "eval", "step": 2, "epoch": 1.0, "top1": 50.0, "loss": math.nan, "seconds": 0.4})
        sink.end({"best": {"top1": 50.0}, "best_step": 2, "seconds": 0.4})
        getattr(sink, "close", lambda: None)()


def takes_a_configuration(subject: Any) -> None:
    """`target(config, resume=..., quiet=...)` can be called so; a run is not tried."""
    train = subject.spec.load()
    try:
        inspect.signature(train).bind(Config(), resume=False, quiet=True, **subject.spec.kwargs)
    except TypeError as error:
        raise AssertionError(f"it cannot be called as (config, resume=..., quiet=...): {error}") from error


LOSS = (gives_a_scalar,)
LOGGER = (takes_rows,)
TRAINER = (takes_a_configuration,)
