"""Step times of sixteen optimizers over real models' parameters, beside the peer's defaults and the memory's limit.

    .nox/imgzoo/bin/python benchmarks/optim.py [--quick] [--json out.json] [NAME ...]

One process of the parity environment runs both sides, step by step in turn, so that noise falls on both. The memory's
limit is the time that reading and writing each operand once would take at the bandwidth of an addition in the same run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from rows import Row, cases, main, mean, paired, peak_memory

NAMES = ("sgd", "adamw", "nadamw", "lamb", "lion", "rmsproptf", "adafactor", "adan", "adabelief", "madgrad", "laprop",
         "sgdp", "adamp", "novograd", "muon", "lars")  # fmt: skip
SLOW = ("muon",)
"""One step a side: the peer orthogonalizes in bfloat16, minutes a step where the processor emulates it."""
STATES = {"sgd": 1, "lion": 1, "adan": 4, "madgrad": 3, "adafactor": 0, "sgdp": 1, "novograd": 1, "muon": 1, "lars": 1}


def shapes(model: str) -> list[tuple[int, ...]]:
    """Parameter shapes of `resnet50` or `vit_small` (patch 16, 224)."""
    if model == "resnet50":
        import torchvision

        return [tuple(p.shape) for p in torchvision.models.resnet50().parameters()]
    d = 384
    block = [(d,), (d,), (3 * d, d), (3 * d,), (d, d), (d,), (d,), (d,), (4 * d, d), (4 * d,), (d, 4 * d), (d,)]
    return [(1, 1, d), (1, 197, d), (d, 3, 16, 16), (d,), *(12 * block), (d,), (d,), (1000, d), (1000,)]


def measure(rounds: int, threads: int, names: list[str]) -> None:
    """Run both sides and print one JSON row a case; called inside the peer's interpreter."""
    import time
    import warnings

    warnings.simplefilter("ignore")
    import timm.optim
    import torch

    from imgzoo_optim import create_optimizer

    torch.set_num_threads(threads)
    for model in ("resnet50", "vit_small"):
        params = [torch.nn.Parameter(torch.randn(shape) * 0.02) for shape in shapes(model)]
        for param in params:
            param.grad = torch.randn_like(param) * 0.01
        x, y = torch.zeros(1 << 25), torch.zeros(1 << 25)
        additions = []
        for _ in range(5):
            start = time.perf_counter()
            x.add_(y)
            additions.append(time.perf_counter() - start)
        bandwidth = 3 * 4 * x.numel() / min(additions)
        del x, y
        for name in names:
            pair = [
                timm.optim.create_optimizer_v2(params, name, lr=1e-6, weight_decay=0.05),
                create_optimizer(name, params, lr=1e-6, weight_decay=0.05),
            ]
            times: list[list[float]] = [[], []]
            for i in range(2 + rounds if name not in SLOW else 0):
                for side, optimizer in enumerate(pair):
                    start = time.perf_counter()
                    optimizer.step()
                    if i >= 2:
                        times[side].append(time.perf_counter() - start)
            memory, seconds = zip(*(peak_memory(optimizer.step) for optimizer in pair))
            if name in SLOW:
                times = [[second] for second in seconds]
            traffic = sum(p.numel() for p in params) * 4 * (3 + 2 * STATES.get(name, 2))
            row = {"model": model, "name": name, "times": [(ours, peer) for peer, ours in zip(*times)]}
            print(json.dumps(row | {"limit": traffic / bandwidth, "memory": memory[::-1]}), flush=True)


def rows(args: argparse.Namespace) -> Iterator[Row]:
    names = args.names or (("adamw", "lion") if args.quick else NAMES)
    found, memory = [], []
    for case in cases(__file__, "--rounds", 3 if args.quick else 7, *names):
        work = f"{case['name']} step, {case['model']} parameters"
        bound = f"memory: reading and writing everything once takes {case['limit'] * 1e3:.1f} ms"
        found.append(paired("optim", work, "ms", case["times"], 1.2, bound, 1e3))
        work = f"peak memory of a {work}"
        memory.append(paired("optim", work, "MB", [[max(size, 1e4) for size in case["memory"]]], None, "", 1e-6))
        yield from (found[-1], memory[-1])
    yield mean("optim", f"optimizer step, {len(names)} optimizers, 2 models", found, 3.0, 1.2)
    yield mean("optim", "peak memory of an optimizer step", memory, 1.0)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*")
    parser.add_argument("--threads", type=int, default=2, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=7, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)


if __name__ == "__main__":
    if "--worker" in sys.argv:
        inner = argparse.ArgumentParser()
        options(inner)
        inside = inner.parse_args()
        measure(inside.rounds, inside.threads, inside.names)
    else:
        main(__doc__, rows, options)
