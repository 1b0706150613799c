"""The weights of a run as a model of their own."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from imgzoo_train import build
from imgzoo_train.config import Config
from imgzoo_train.state import State
from imgzoo_train.techniques import adapters, batch_norm
from imgzoo_train.tree import snapshot


def full_weights(state: State) -> dict[str, torch.Tensor]:
    """Copies of all weights on the CPU, gathered where they are sharded (collective)."""
    return snapshot(dict(state.plain.state_dict()))


def publishable(config: Config, weights: dict[str, torch.Tensor], sources: Any, trained: Any) -> Any:
    """A plain copy of the trained model: adapters merged into their layers, auxiliary batch norms taken off."""
    part = dataclasses.replace(config.model, pretrained="", grad_checkpointing=False)
    model: Any = build.build_model(dataclasses.replace(config, model=part), sources.classes, sources.names)
    if config.model.lora:
        adapters.add_lora(model, config.model.lora)
    if config.model.split_bn > 1:
        batch_norm.split_batch_norm(model, config.model.split_bn)
    model.load_state_dict(weights)
    model.pretrained_cfg, model.load_report = trained.pretrained_cfg, getattr(trained, "load_report", None)
    return adapters.merge_lora(batch_norm.merge_split(model)).eval()
