"""Step times of sixteen optimizers over real models' parameters, beside the peer's defaults and the memory's limit.

    python benchmarks/optim.py --peer .nox/parity/bin/python

The peer's interpreter runs both sides in one process, step by step in turn, so that noise falls on both. `limit` is the
time that reading and writing each operand once would take at the bandwidth of an in-place addition in the same run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

NAMES = [
    "sgd",
    "adamw",
    "nadamw",
    "lamb",
    "lion",
    "rmsproptf",
    "adafactor",
    "adan",
    "adabelief",
    "madgrad",
    "laprop",
    "sgdp",
    "adamp",
    "novograd",
    "muon",
    "lars",
]
STATES = {"sgd": 1, "lion": 1, "adan": 4, "madgrad": 3, "adafactor": 0, "sgdp": 1, "novograd": 1, "muon": 1, "lars": 1}
PEER = Path(__file__).parents[1] / ".nox/parity/bin/python"


def shapes(model: str) -> list[tuple[int, ...]]:
    """Parameter shapes of `resnet50` or `vit_small` (patch 16, 224)."""
    if model == "resnet50":
        import torchvision

        return [tuple(p.shape) for p in torchvision.models.resnet50().parameters()]
    d = 384
    block = [(d,), (d,), (3 * d, d), (3 * d,), (d, d), (d,), (d,), (d,), (4 * d, d), (4 * d,), (d, 4 * d), (d,)]
    return [(1, 1, d), (1, 197, d), (d, 3, 16, 16), (d,), *(12 * block), (d,), (d,), (1000, d), (1000,)]


def peak_memory(step) -> int:
    """Bytes allocated at the most during one step, beyond what stays."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    current = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            current += event.nbytes()
            peak = max(peak, current)
    return peak


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
            for i in range(2 + (rounds if name != "muon" else min(rounds, 3))):
                for side, optimizer in enumerate(pair):
                    start = time.perf_counter()
                    optimizer.step()
                    if i >= 2:
                        times[side].append(time.perf_counter() - start)
            memory = [peak_memory(optimizer.step) for optimizer in pair]
            traffic = sum(p.numel() for p in params) * 4 * (3 + 2 * STATES.get(name, 2))
            row = {"model": model, "name": name, "peer": min(times[0]), "ours": min(times[1])}
            print(json.dumps(row | {"limit": traffic / bandwidth, "memory": memory}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=os.environ.get("IMGZOO_PEER_PYTHON", str(PEER)), help="interpreter with timm")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--names", default=",".join(NAMES), help="optimizers, separated by commas")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        measure(options.rounds, options.threads, options.names.split(","))
        return
    os.environ["KINETO_LOG_LEVEL"] = "6"
    arguments = [f"--rounds={options.rounds}", f"--threads={options.threads}", f"--names={options.names}", "--worker"]
    worker = subprocess.Popen([options.peer, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    heads = "".join(f"{text:>9}" for text in ("peer ms", "ours ms", "limit ms"))
    print(f"{'model':10}{'optimizer':11}{heads}{'ratio':>7}{'peer MB':>9}{'ours MB':>9}", flush=True)
    ratios = []
    assert worker.stdout is not None
    for line in worker.stdout:
        row = json.loads(line)
        ratio = row["peer"] / row["ours"]
        ratios.append(ratio)
        times = "".join(f"{row[key] * 1e3:9.1f}" for key in ("peer", "ours", "limit"))
        memory = "".join(f"{size / 2**20:9.1f}" for size in row["memory"])
        print(f"{row['model']:10}{row['name']:11}{times}{ratio:7.2f}{memory}", flush=True)
    if worker.wait() or not ratios:
        sys.exit("the worker failed; is the peer installed in that interpreter (--peer)?")
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"geometric mean {mean:.2f} (target 3), least {min(ratios):.2f} (target 1.2)")


if __name__ == "__main__":
    main()
