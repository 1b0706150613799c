"""Reading weight files into networks, and resuming from the field's checkpoints."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

import imgzoo
from imgzoo.errors import UsageError
from imgzoo.loading.files import read_state, strip_wrappers
from imgzoo_timm.utils._reading import load_checkpoint_metadata, told_of_files

__all__ = ["clean_state_dict", "load_checkpoint", "load_state_dict", "remap_state_dict", "resume_checkpoint"]

log = logging.getLogger(__name__)


def clean_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Without what wrappers put before every name, a compiled one outside or inside a distributed one."""
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):
        state_dict = {key.removeprefix(prefix): value for key, value in state_dict.items()}
    return dict(state_dict)


def load_state_dict(checkpoint_path: str, use_ema: bool = True, device: str | torch.device = "cpu",
                    weights_only: bool = True) -> dict[str, Any]:  # fmt: skip
    """The tensors of a file, averaged ones where it has both; nothing in it is ever run."""
    with told_of_files():
        state = strip_wrappers(read_state(existing(checkpoint_path), use_ema))
    return {key: value.to(device) for key, value in state.items()}


def existing(path: Any) -> Any:
    if not path or not os.path.isfile(path):
        raise FileNotFoundError(f"there is no checkpoint {path}")
    return os.fspath(path)


def remap_state_dict(state_dict: Mapping[str, Any], model: nn.Module, allow_reshape: bool = True) -> dict[str, Any]:
    """Tensors under the model's names, by their order; their sizes have to agree."""
    own = model.state_dict()
    if len(own) != len(state_dict):
        raise UsageError(f"{len(state_dict)} tensors cannot stand for {len(own)}")
    out = {}
    for (name, mine), theirs in zip(own.items(), state_dict.values()):
        if mine.numel() != theirs.numel() or (mine.shape != theirs.shape and not allow_reshape):
            raise UsageError(f"a tensor {tuple(theirs.shape)} cannot stand for {name} {tuple(mine.shape)}")
        out[name] = theirs.reshape(mine.shape)
    return out


def load_checkpoint(model: nn.Module, checkpoint_path: str, use_ema: bool = True,
                    device: str | torch.device = "cpu", strict: bool = True, remap: bool = False,
                    filter_fn: Callable[..., Any] | None = None, weights_only: bool = True) -> Any:  # fmt: skip
    """Read a weight file into a model; a network of the catalogs also takes the formats that imgzoo converts."""
    path = existing(checkpoint_path)
    if isinstance(model, imgzoo.ImageModel) and filter_fn is None and not remap:
        with told_of_files():
            report = imgzoo.load_checkpoint(model, path, strict=strict, use_ema=use_ema)
        return nn.modules.module._IncompatibleKeys(list(report.initialized), list(report.unused))
    state = load_state_dict(path, use_ema, device)
    if remap:
        state = remap_state_dict(state, model)
    elif filter_fn is not None:
        state = filter_fn(state, model)
    return model.load_state_dict(state, strict=strict)


def resume_checkpoint(model: nn.Module, checkpoint_path: str, optimizer: Any = None, loss_scaler: Any = None,
                      log_info: bool = True, weights_only: bool = True) -> int | None:  # fmt: skip
    """Put back model, optimizer and loss scaler of a checkpoint; returns the epoch to go on with.

    Nothing in the file is run, whatever `weights_only` says.
    """
    stored = load_checkpoint_metadata(existing(checkpoint_path))
    if not isinstance(stored, dict) or "state_dict" not in stored:
        model.load_state_dict(clean_state_dict(stored))
        return None
    model.load_state_dict(clean_state_dict(stored["state_dict"]))
    if optimizer is not None and "optimizer" in stored:
        optimizer.load_state_dict(stored["optimizer"])
    key = getattr(loss_scaler, "state_dict_key", "")
    if loss_scaler is not None and key in stored:
        loss_scaler.load_state_dict(stored[key])
    epoch = stored.get("epoch")
    if epoch is not None and stored.get("version", 0) > 1:
        epoch += 1  # since version 2 the number is of the epoch that is done
    if log_info:
        log.info("resumed %s (epoch %s)", checkpoint_path, epoch)
    return epoch
