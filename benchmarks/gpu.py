"""Ours beside the peer on one GPU: forward, training step, optimizers, a loader that feeds a step, checkpoints.

    .nox/imgzoo/bin/python benchmarks/gpu.py [--quick] [--json out.json] [--only forward,train,...]

Both sides run in one process with the same weights, in turns. On a CPU the same code runs in a reduced form, to see
that it does; its figures say nothing of a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rows import Row, alone, cases, main, mean, paired

FLAGSHIPS = ("resnet50", "efficientnet_b0", "mobilenetv3_large_100", "regnety_032", "convnext_tiny",
             "vit_small_patch16_224", "vit_base_patch16_224", "deit3_base_patch16_224",
             "swin_tiny_patch4_window7_224", "eva02_small_patch14_224")  # fmt: skip
COMPILED = ("resnet50", "convnext_tiny", "vit_base_patch16_224")
OPTIMIZERS = ("sgd", "adamw", "nadamw", "lamb", "lion", "adafactor", "adan", "muon", "laprop", "adamp")
PARTS = ("forward", "train", "compiled", "optimizers", "loader", "checkpoints")
SMALL = ("resnet18", "vit_tiny_patch16_224")


class Bench:
    """What the parts share: the device, how large the work is, and how a call is timed."""

    def __init__(self, rounds: int) -> None:
        import torch

        self.torch, self.rounds = torch, rounds
        self.cuda = torch.cuda.is_available()
        self.device = torch.device("cuda" if self.cuda else "cpu")
        self.batch = 128 if self.cuda else 2
        self.names = FLAGSHIPS if self.cuda else SMALL

    def seconds(self, call: Callable[[], Any], times: int = 1) -> float:
        """Mean seconds of a call, of several without a wait between them."""
        self.wait()
        start = time.perf_counter()
        for _ in range(times):
            call()
        self.wait()
        return (time.perf_counter() - start) / times

    def wait(self) -> None:
        if self.cuda:
            self.torch.cuda.synchronize()

    def pairs(self, ours: Callable[[], Any], peer: Callable[[], Any], times: int = 5) -> list[tuple[float, float]]:
        """Seconds of both, in turns, after warming up."""
        for call in (ours, peer) * (3 if self.cuda else 1):
            call()
        times = times if self.cuda else 1
        return [(self.seconds(ours, times), self.seconds(peer, times)) for _ in range(self.rounds)]

    def models(self, name: str, compiled: bool = False) -> tuple[Any, Any]:
        """Ours and the peer's network of a name with the same weights, channels-last."""
        import timm

        import imgzoo

        peer, ours = (create(name, num_classes=1000) for create in (timm.create_model, imgzoo.create_model))
        ours.load_state_dict(peer.state_dict())
        both = (m.to(self.device, memory_format=self.torch.channels_last) for m in (ours, peer))
        first, second = (self.torch.compile(m) if compiled else m for m in both)
        return first, second

    def images(self) -> Any:
        x = self.torch.randn(self.batch, 3, 224, 224, device=self.device)
        return x.contiguous(memory_format=self.torch.channels_last)


def tell(kind: str, work: str, times: list[Any], **more: Any) -> None:
    print(json.dumps({"kind": kind, "work": work, "times": times, **more}), flush=True)


def forward(bench: Bench) -> None:
    torch, x = bench.torch, bench.images()
    for name in bench.names:
        models = [model.eval() for model in bench.models(name)]

        def call(model: Any, dtype: Any) -> Callable[[], Any]:
            def run() -> None:
                with torch.inference_mode(), torch.autocast(bench.device.type, dtype, enabled=dtype is not None):
                    model(x)

            return run

        for label, dtype in (("fp32", None), ("bf16", torch.bfloat16)):
            tell("forward", f"forward {name} {label}", bench.pairs(*(call(model, dtype) for model in models)))


def step_of(bench: Bench, model: Any, optimizer: Any, targets: Any) -> Callable[[Any], None]:
    torch = bench.torch

    def step(x: Any) -> None:
        with torch.autocast(bench.device.type, torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(x), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def train(bench: Bench, names: tuple[str, ...] = (), compiled: bool = False) -> None:
    import timm.optim

    from imgzoo_optim import create_optimizer

    torch, x = bench.torch, bench.images()
    targets = torch.randint(1000, (bench.batch,), device=bench.device)
    for name in names or bench.names:
        ours, peer = (model.train() for model in bench.models(name, compiled))
        steps = [
            step_of(bench, ours, create_optimizer("adamw", ours, lr=1e-3), targets),
            step_of(bench, peer, timm.optim.create_optimizer_v2(peer, "adamw", lr=1e-3), targets),
        ]
        peaks = []
        for step in steps if bench.cuda else ():
            step(x)
            torch.cuda.reset_peak_memory_stats()
            step(x)
            peaks.append(torch.cuda.max_memory_allocated() / 2**20)
        label = "compiled step" if compiled else "step"
        calls = [lambda step=step: step(x) for step in steps]
        kind = "compiled step" if compiled else "training step"
        tell(kind, f"{label} {name} bf16, AdamW", bench.pairs(*calls), peaks=peaks)


def compiled(bench: Bench) -> None:
    train(bench, COMPILED if bench.cuda else SMALL[:1], compiled=True)


def optimizers(bench: Bench) -> None:
    import timm.optim

    from imgzoo_optim import create_optimizer

    for name in ("resnet50", "vit_base_patch16_224") if bench.cuda else SMALL[:1]:
        models = bench.models(name)
        for model in models:
            for parameter in model.parameters():
                parameter.grad = bench.torch.randn_like(parameter) * 0.01
        for kind in OPTIMIZERS if bench.cuda else OPTIMIZERS[:2]:
            ours = create_optimizer(kind, models[0], lr=1e-3)
            peer = timm.optim.create_optimizer_v2(models[1], kind, lr=1e-3)
            tell("optimizers", f"{kind} over {name}", bench.pairs(ours.step, peer.step, 10))


def write_pictures(folder: Path, count: int) -> None:
    """Smooth color pictures of 500 by 375 pixels as JPEG, in ten classes."""
    import numpy as np
    from PIL import Image

    for index in range(count):
        rng = np.random.default_rng(index)
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        place = folder / "train" / str(index % 10)
        place.mkdir(parents=True, exist_ok=True)
        small.resize((500, 375), Image.Resampling.BICUBIC).save(place / f"{index}.jpg", quality=90)


def loader(bench: Bench) -> None:
    """Seconds of an epoch of training fed from JPEG files, beside the same steps on one batch that is there."""
    import os

    import timm.data
    import timm.optim

    from imgzoo_data import DataConfig, create_dataset, create_loader, create_transform
    from imgzoo_optim import create_optimizer

    name, count = ("resnet50", 64 * bench.batch) if bench.cuda else (SMALL[0], 4 * bench.batch)
    workers = max(1, (os.cpu_count() or 2) - 1)
    torch, x = bench.torch, bench.images()
    targets = torch.randint(1000, (bench.batch,), device=bench.device)
    models = bench.models(name)
    steps = [
        step_of(bench, models[0].train(), create_optimizer("adamw", models[0], lr=1e-3), targets),
        step_of(bench, models[1].train(), timm.optim.create_optimizer_v2(models[1], "adamw", lr=1e-3), targets),
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), count)
        transform = create_transform(DataConfig(), training=True)
        ours = create_loader(create_dataset(f"folder:{folder}", "train"), transform, bench.batch, training=True,
                             workers=workers, device=bench.device, channels_last=True)  # fmt: skip
        peer = timm.data.create_loader(
            timm.data.create_dataset("", root=f"{folder}/train"), (3, 224, 224), bench.batch, is_training=True,
            num_workers=workers, device=bench.device, color_jitter=0.0, persistent_workers=True,
        )  # fmt: skip

        def epoch(batches: Any, step: Callable[[Any], None]) -> None:
            for images, *_ in batches:
                step(images.contiguous(memory_format=torch.channels_last))

        length = count // bench.batch
        calls = [lambda: epoch(ours, steps[0]), lambda: epoch(peer, steps[1])]
        for call in calls:
            call()
        times = [[bench.seconds(call) for call in calls] for _ in range(2)]
        ideal = length * bench.seconds(lambda: steps[0](x), length)
    tell("loader", f"epoch of {count} JPEGs into {name} bf16, {workers} workers", times, ideal=ideal)


def checkpoints(bench: Bench) -> None:
    """Seconds that a save takes from the loop: in the background, and by `torch.save`."""
    from imgzoo_optim import create_optimizer
    from imgzoo_train.files.checkpoints import Checkpoints
    from imgzoo_train.loop.state import State
    from imgzoo_train.ranks.world import World

    torch, x = bench.torch, bench.images()
    model = bench.models("vit_base_patch16_224" if bench.cuda else SMALL[1])[0].train()
    targets = torch.randint(1000, (bench.batch,), device=bench.device)
    optimizer = create_optimizer("adamw", model, lr=1e-3)
    step = step_of(bench, model, optimizer, targets)
    state = State(model, optimizer, world=World(device=bench.device))
    steps = 10 if bench.cuda else 1

    def run(save: Callable[[], None]) -> float:
        def together() -> None:
            step(x)
            save()
            for _ in range(steps):
                step(x)

        return bench.seconds(together)

    with tempfile.TemporaryDirectory() as folder:
        store = Checkpoints(Path(folder) / "checkpoints")
        number = iter(range(1, 100))
        run(lambda: None)
        times = []
        for _ in range(3):
            plain = run(lambda: None)
            ours = run(lambda: store.save(next(number), state.parts())) - plain
            store.wait()
            both = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            times.append((ours, run(lambda: torch.save(both, f"{folder}/peer.pt")) - plain))  # noqa: B023
    tell("checkpoints", "time a checkpoint takes from the loop", times)


def measure(rounds: int, parts: list[str]) -> None:
    """One JSON line for each piece of work, in the parity environment."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    bench = Bench(rounds)
    for part in parts:
        globals()[part](bench)


def rows(args: argparse.Namespace) -> Iterator[Row]:
    import torch

    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    bound = where if where != "cpu" else "a reduced form on the CPU, to see that it runs"
    found: dict[str, list[Row]] = {}
    for case in cases(__file__, "--rounds", 3 if args.quick else args.rounds, "--only", args.only):
        row = paired("gpu", f"{where}: {case['work']}", "ms", case["times"], None, bound, 1e3)
        found.setdefault(case["kind"], []).append(row)
        yield row
        for side, peak in zip(("ours", "peer"), case.get("peaks", ())):
            yield alone("gpu", f"{where}: peak of {case['work']}, {side}", "MiB", peak, None, bound)
        if "ideal" in case:
            yield alone(
                "gpu", f"{where}: the same steps on a batch that is there", "ms", 1e3 * case["ideal"], None, bound
            )
    for kind, several in found.items():
        if len(several) > 1:
            yield mean("gpu", f"{where}: {kind}, geometric mean", several, 1.0)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")


if __name__ == "__main__":
    if "--worker" in sys.argv:
        inner = argparse.ArgumentParser()
        options(inner)
        given = inner.parse_args()
        measure(given.rounds, given.only.split(","))
    else:
        main(__doc__, rows, options)
