"""Checkpoints into models that exist."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn

from imgzoo.errors import WeightsError
from imgzoo.factory import create_model
from imgzoo.features import FeatureModel

from .adapt import State, check_fit
from .load import LoadReport, fit, misfit, read_weights, target_of
from .places import folder_file


def inside(model: Any) -> tuple[Any, bool]:
    """The network in wrappers of torch and in a feature extractor, and whether it was one."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = cast(Any, model).module
        if inner is None:
            return (model.model, True) if isinstance(model, FeatureModel) else (cast(Any, model), False)
        model = inner


def twin_of(model: Any, chans: int) -> State | None:
    """The tensors of a model that `create_model` made, had it been asked for images of so many channels."""
    if not getattr(model, "name", ""):
        return None
    options = {**model.model_args, "in_chans": chans, "num_classes": model.num_classes}
    return create_model(model.name, device="meta", **options).state_dict()


def load_checkpoint(
    model: Any, path: str | os.PathLike[str], *, strict: bool = True, use_ema: bool = True
) -> LoadReport:
    """Load a weight file into an existing model, converting and adapting it; raises `WeightsError` if it does not fit.

    The model may be wrapped (`DataParallel`, compiled), or a feature extractor, which has no place for later levels.
    `strict=False` leaves what the file lacks as it is, but something has to fit; `use_ema` prefers averaged weights
    where a checkpoint has both. A model on the meta device moves to the CPU.
    """
    path = Path(path)
    if path.is_dir():
        path = folder_file(path)
    network, extractor = inside(model)
    own = network.state_dict()
    name = type(network).__name__
    target = target_of(network)
    state = read_weights(path, target, use_ema=use_ema)
    state, report = fit(state, network, own, None, path, partial(twin_of, network))
    missing, report.unused = check_fit(state, own, name)
    report.initialized = missing
    extra = [] if extractor else report.unused
    if (strict and (missing or extra)) or len(missing) == len(own):
        raise WeightsError(misfit(path, name, missing, report.unused))
    if any(value.is_meta for value in own.values()):
        if missing:
            raise WeightsError(f"a model on the meta device has no values for {missing[0]}, and neither has '{path}'")
        network.to_empty(device="cpu")  # which computes the buffers that no file holds
    network.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)
    return report
