"""The best weights of a run: which they are, and how they become a model of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import UsageError
from imgzoo_train.config.settings import Config
from imgzoo_train.files.checkpoints import folder_name
from imgzoo_train.files.packing import snapshot
from imgzoo_train.files.storage import StorageError
from imgzoo_train.loop.state import State
from imgzoo_train.runs.folder import RunFolder
from imgzoo_train.scores.evaluation import Evaluation
from imgzoo_train.scores.metrics import better, lower_is_better, oriented
from imgzoo_train.techniques import adapters, batch_norm

from . import assembly


def judge(best: dict[str, Any], step: int, name: str, results: Mapping[str, Evaluation]) -> tuple[str, bool]:
    """Which weights score best at this step by the metric `name`, and whether none did better before.

    `best` is the run's record of it and is brought up to date. Raises `UsageError` for a metric that no one measures.
    """
    if name not in results[""].metrics:
        raise UsageError(f"--metric {name} is not measured; there are {', '.join(results[''].metrics)}")
    scored = {key: oriented(name, found.metrics[name]) for key, found in results.items()}
    variant = max(scored, key=lambda key: scored[key] if scored[key] == scored[key] else float("-inf"))
    best.setdefault("scores", {})[str(step)] = scored[variant]
    if not better(scored[variant], best.get("oriented")):
        best["waited"] = best.get("waited", 0) + 1
        return variant, False
    best |= {"oriented": scored[variant], "step": step, "variant": variant, "waited": 0}
    best |= {"metrics": {key: float(value) for key, value in results[variant].metrics.items()}}
    return variant, True


def summary_of(best: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The record of the best weights as the summary of a run tells it."""
    return {
        "metric": name,
        "best": dict(best.get("metrics", {})),
        "best_step": best.get("step"),
        "best_weights": (best.get("variant") or "").removeprefix("_") or "raw",
        "lower_is_better": lower_is_better(name),
    }


def check_written(best: Mapping[str, Any], folder: RunFolder) -> None:
    """Raise `StorageError` where `best/` does not hold the best weights, since the disk was full."""
    step, there = best.get("step"), (folder.best / "config.json").is_file()
    written = best.get("written", step)
    if step == written and there:
        return
    held = f"that of step {written}" if there else "nothing"
    where = folder.checkpoints / folder_name(step or 0)
    helps = f"; `imgzoo clean {where} --output FOLDER` writes it" if where.is_dir() else ""
    raise StorageError(f"no space was left for the best model, of step {step}: best/ holds {held}{helps}")


def writer(config: Config, sources: Any, state: State, weights: dict[str, torch.Tensor]) -> Callable[[Path], None]:
    """What writes these weights as a model into a folder, with class names, scores and license."""
    from imgzoo import save_model

    names = sources.names
    if not names and config.loss.task != "regression":
        names = [str(number) for number in range(sources.classes)]  # what classes without a name are called

    def write(folder: Path) -> None:
        model: Any = state.plain
        if config.model.lora or config.model.split_bn > 1:
            model = publishable(config, weights, sources, model)
        save_model(
            model,
            folder,
            class_names=names or None,
            metrics=state.best.get("metrics"),
            state=weights if model is state.plain else None,
            license=model.pretrained_cfg.get("license") if getattr(model, "load_report", None) else None,
        )

    return write


def full_weights(state: State) -> dict[str, torch.Tensor]:
    """Copies of all weights on the CPU, gathered where they are sharded (collective)."""
    return snapshot(dict(state.plain.state_dict()))


def publishable(config: Config, weights: dict[str, torch.Tensor], sources: Any, trained: Any) -> Any:
    """A plain copy of the trained model: adapters merged into their layers, auxiliary batch norms taken off."""
    part = dataclasses.replace(config.model, pretrained="", grad_checkpointing=False)
    model: Any = assembly.build_model(dataclasses.replace(config, model=part), sources.classes, sources.names)
    if config.model.lora:
        adapters.add_lora(model, config.model.lora)
    if config.model.split_bn > 1:
        batch_norm.split_batch_norm(model, config.model.split_bn)
    model.load_state_dict(weights)
    model.pretrained_cfg, model.load_report = trained.pretrained_cfg, getattr(trained, "load_report", None)
    return adapters.merge_lora(batch_norm.merge_split(model)).eval()
