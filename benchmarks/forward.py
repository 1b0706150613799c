"""Eager forward pass and training step of the flagships beside the peer: fp32, 2 threads, same weights, same batch.

    .nox/imgzoo/bin/python benchmarks/forward.py [--only forward|train] [--quick] [--json out.json] [MODEL ...]

One process of the parity environment holds both models and runs them in turn, so that noise falls on both.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from rows import Row, cases, main, mean, paired, peak_memory, seconds

MODELS = ("resnet18", "resnet50", "regnety_016", "convnext_tiny", "convnextv2_nano", "vit_tiny_patch16_224",
          "vit_small_patch16_224", "swin_tiny_patch4_window7_224", "efficientnet_b0",
          "mobilenetv3_large_100")  # fmt: skip
QUICK = ("resnet18", "vit_tiny_patch16_224")
KINDS = ("forward", "train")
BATCH = 8


def limit(model: Any, x: Any, train: bool) -> float:
    """Milliseconds that the model's multiplications take at the speed of a large matrix product, measured now."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    a = torch.randn(2048, 2048)
    model.requires_grad_(False)  # the counter looks for the gradient of a parameter that a module is given
    with FlopCounterMode(display=False) as counter:
        model(x)
    best = seconds(lambda: a @ a, 4)
    return 1e3 * counter.get_total_flops() * (3 if train else 1) * best / (2 * 2048**3)


def pair(name: str, **options: Any) -> tuple[Any, Any]:
    """Our model and the peer's with equal weights."""
    import timm

    import imgzoo

    peer = timm.create_model(name, **options)
    ours = imgzoo.create_model(name, **options)
    ours.load_state_dict(peer.state_dict())
    return ours, peer


def step(model: Any, x: Any, train: bool) -> float:
    """Seconds of one forward pass, or of forward and backward."""
    import torch

    start = time.perf_counter()
    if train:
        model.zero_grad()
        model(x).square().mean().backward()
    else:
        with torch.inference_mode():
            model(x)
    return time.perf_counter() - start


def measure(names: list[str], rounds: int, train: bool) -> None:
    """One JSON line a model: paired seconds, and for training the paired peaks of memory."""
    import torch

    torch.set_num_threads(2)
    for name in names:
        models = pair(name, **({"drop_path_rate": 0.0} if train else {}))
        x = torch.randn(BATCH, *models[0].pretrained_cfg["input_size"])
        for model in models:
            model.train(train)
            step(model, x, train)
        times = [[step(model, x, train) for model in models] for _ in range(rounds)]
        memory = [peak_memory(partial(step, model, x, True))[0] for model in models] if train else None
        case = {"name": name, "times": times, "memory": memory}
        print(json.dumps(case | {"limit": limit(models[0], x, train)}), flush=True)


def rows(args: argparse.Namespace) -> Iterator[Row]:
    for kind in [args.only] if args.only else ["forward", "train"]:
        train = kind == "train"
        work = "training step" if train else "forward"
        names = args.models or list(QUICK if args.quick else MODELS)
        times, peaks = [], []
        rounds = 3 if args.quick else 9
        for found in cases(__file__, kind, "--rounds", rounds, *names):
            label = f"{work} of {found['name']}, batch {BATCH}"
            bound = f"its multiplications take {found['limit']:.0f} ms at the speed of a large matrix product"
            times.append(paired("forward", label, "ms", found["times"], 0.95, bound, 1e3))
            yield times[-1]
            if found["memory"]:
                label = f"peak memory of a {work} of {found['name']}"
                peaks.append(paired("forward", label, "MB", [found["memory"]], None, "activations", 1e-6))
                yield peaks[-1]
        yield mean("forward", f"eager {work}, {len(times)} flagships", times, 1.05, 0.95)
        if peaks:
            yield mean("forward", f"peak memory of an eager {work}", peaks, 1.0)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*")
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--rounds", type=int, default=9, help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=KINDS, help=argparse.SUPPRESS)


if __name__ == "__main__":
    if "--worker" in sys.argv:
        inner = argparse.ArgumentParser()
        options(inner)
        inside = inner.parse_args()
        measure(inside.models, inside.rounds, inside.worker == "train")
    else:
        main(__doc__, rows, options)
