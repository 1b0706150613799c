"""Measure models here: latency, throughput, memory, and what they cost in operations."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from imgzoo.errors import UsageError
from imgzoo.memory import is_short
from imgzoo_train.models.deployed import Deployed, parameter_count
from imgzoo_train.models.deployment import deploy
from imgzoo_train.models.sizes import check_size
from imgzoo_train.techniques.precision import create_precision

Row = dict[str, Any]


@dataclass
class Settings:
    """How models are measured."""

    batch_size: int = 1
    img_size: int | None = None
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    engine: str | None = None
    """What runs the model; None for torch as in training."""
    seconds: float = 2.0
    """Time spent on measuring after warming up."""
    warmup: int = 2


def measure(step: Callable[[], Any], seconds: float, warmup: int, device: torch.device, most: int = 500) -> list[float]:
    """Seconds of each call, over at least three calls and about `seconds` in all."""
    for _ in range(warmup):
        step()
    _wait(device)
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < most):
        start = time.perf_counter()
        step()
        _wait(device)
        times.append(time.perf_counter() - start)
    return times


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


def _row(times: list[float], batch: int) -> Row:
    ordered = sorted(times)
    middle = statistics.median(ordered)
    return {
        "ms_p50": 1000 * middle,
        "ms_p90": 1000 * ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))],
        "images_per_second": batch / middle,
        "runs": len(times),
    }


def images_for(model: Any, settings: Settings) -> torch.Tensor:
    """Random images (B, C, H, W) of the model's size."""
    channels, height, width = model.pretrained_cfg["input_size"]
    if settings.img_size:
        height = width = settings.img_size
    images = torch.randn(settings.batch_size, channels, height, width, device=settings.device)
    return images.contiguous(memory_format=torch.channels_last) if settings.channels_last else images


def _prepared(model: Any, settings: Settings) -> Any:
    model = model.to(settings.device)
    return model.to(memory_format=torch.channels_last) if settings.channels_last else model


def inference(model: Any, settings: Settings) -> Row:
    """Latency and throughput of the forward pass."""
    if isinstance(model, Deployed):
        return _deployed(model, settings)
    if settings.engine is not None:
        example = images_for(model.to(settings.device), settings)
        return _deployed(deploy(model, settings.engine, precision=settings.precision, example=example), settings)
    precision = create_precision(settings.precision, settings.device)
    called: Any = precision.prepare(_prepared(model, settings).eval())
    images = precision.inputs(images_for(model, settings))
    if settings.compile:
        called = torch.compile(called)
    with torch.inference_mode(), precision.forward(settings.device):
        times = measure(lambda: called(images), settings.seconds, settings.warmup, settings.device)
    return _row(times, settings.batch_size)


def _deployed(model: Deployed, settings: Settings) -> Row:
    """Latency and throughput of a deployed model, beside what it cost to make."""
    images = images_for(model, settings)
    times = measure(lambda: model(images), settings.seconds, settings.warmup, settings.device)
    kept = ("engine", "precision", "threads", "compile_seconds", "memory_mb", "why")
    return _row(times, settings.batch_size) | {key: model.report[key] for key in kept if key in model.report}


def training(model: Any, settings: Settings) -> Row:
    """Latency and throughput of a whole training step with SGD."""
    precision = create_precision(settings.precision, settings.device)
    model = precision.prepare(_prepared(model, settings).train())
    called: Any = torch.compile(model) if settings.compile else model
    images = precision.inputs(images_for(model, settings))
    targets = torch.zeros(settings.batch_size, dtype=torch.int64, device=settings.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        with precision.forward(settings.device):
            output = called(images)
        output = output[0] if isinstance(output, (tuple, list)) else output
        F.cross_entropy(output.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return _row(measure(step, settings.seconds, settings.warmup, settings.device), settings.batch_size)


@torch.no_grad()
def profile(model: Any, settings: Settings) -> Row:
    """Operations and activations of one image: GMACs counted by torch, M activations of convolutions and products."""
    from torch.utils.flop_counter import FlopCounterMode

    model = _prepared(model, settings).eval()
    counted = 0

    def add(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal counted
        counted += output.numel() if isinstance(output, torch.Tensor) else 0

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    handles = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, kinds)]
    counter = FlopCounterMode(display=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)  # the counter looks for the gradient of a parameter that a module is given
    try:
        with counter:
            model(images_for(model, settings)[:1].to(next(model.parameters()).dtype))
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
    return {"gmacs": counter.get_total_flops() / 2e9, "macts": counted / 1e6}


MODES: dict[str, Callable[[Any, Settings], Row]] = {"inference": inference, "training": training, "profile": profile}


def benchmark(name: str, settings: Settings, modes: list[str]) -> Row:
    """Build a model with random weights and measure it; a batch too large for memory is halved."""
    from imgzoo import create_model
    from imgzoo_train.engines.files import is_deployed

    from .opening import model_folder, open_model

    known = is_deployed(Path(name)) or model_folder(name) is not None
    build = open_model if known else create_model
    model = build(name, img_size=settings.img_size)
    if isinstance(model, Deployed):
        if settings.engine is not None or settings.precision != "fp32" or settings.channels_last or settings.compile:
            raise UsageError(f"{name} is deployed: leave --engine, --precision, --channels-last and --compile out")
        if "training" in modes:
            raise UsageError(f"{name} is deployed and cannot be trained: leave --mode training out")
        modes = ["inference"]
    if settings.img_size:
        check_size(model, settings.img_size)
    size = settings.img_size or int(model.pretrained_cfg["input_size"][1])
    row: Row = {"model": name, "img_size": size, "batch_size": settings.batch_size}
    row["params_m"] = parameter_count(model) / 1e6
    for mode in modes:
        prefix = "" if mode != "training" else "train_"
        while True:
            try:
                row |= {f"{prefix}{key}": value for key, value in MODES[mode](model, settings).items()}
                break
            except (RuntimeError, MemoryError) as error:
                if not is_short(error) or settings.batch_size == 1:
                    raise
                settings.batch_size //= 2
                row["batch_size"] = settings.batch_size
    return row
