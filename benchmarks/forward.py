"""Eager forward pass and training step of the flagships beside the peer: fp32, 2 threads, same weights, same batch.

    .nox/imgzoo/bin/python benchmarks/forward.py [--rounds 9] [--train] [--json out.json] [MODEL ...]

One process of the parity environment holds both models and runs them in turn, so that noise falls on both.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PEER_PYTHON = ROOT / ".nox" / "parity" / "bin" / "python"
MODELS = ("resnet18", "resnet50", "regnety_016", "convnext_tiny", "convnextv2_nano", "vit_tiny_patch16_224",
          "vit_small_patch16_224", "swin_tiny_patch4_window7_224", "efficientnet_b0",
          "mobilenetv3_large_100")  # fmt: skip
TARGET = 0.95
BATCH = 8


def pair(name: str) -> tuple[Any, Any]:
    """Our model and the peer's with equal weights."""
    import timm

    import imgzoo

    peer = timm.create_model(name, drop_path_rate=0.0)
    ours = imgzoo.create_model(name, drop_path_rate=0.0)
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
    """One JSON line a model: median milliseconds of each, and the ratio of the paired medians."""
    import torch

    torch.set_num_threads(2)
    for name in names:
        models = pair(name)
        x = torch.randn(BATCH, 3, 224, 224)

        for model in models:
            model.train(train)
            step(model, x, train)
        times = [[step(model, x, train) for model in models] for _ in range(rounds)]
        ours, peer = (statistics.median(row[i] for row in times) * 1e3 for i in (0, 1))
        ratio = statistics.median(row[1] / row[0] for row in times)
        work = f"{'training step' if train else 'forward'} {name}, batch {BATCH}"
        print(json.dumps({"work": work, "ours": ours, "peer": peer, "unit": "ms", "ratio": ratio, "target": TARGET,
                          "bound": "matrix products and convolutions of oneDNN"}), flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--train", action="store_true", help="time a training step instead")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        measure(options.models, options.rounds, options.train)
        return
    flags = ["--worker", f"--rounds={options.rounds}", *(["--train"] if options.train else [])]
    command = [str(PEER_PYTHON), __file__, *flags, *options.models]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    found = []
    for line in worker.stdout:
        row = json.loads(line)
        found.append(row)
        print(f"{row['work']:52} ours {row['ours']:8.1f} ms  peer {row['peer']:8.1f}  {row['ratio']:5.2f}x", flush=True)
    if worker.wait() or not found:
        sys.exit("the worker failed; is the peer installed? run python -m nox -s parity once")
    mean = math.exp(statistics.mean(math.log(row["ratio"]) for row in found))
    least = min(row["ratio"] for row in found)
    print(f"geometric mean {mean:.2f} (target 1.05), least {least:.2f} (target {TARGET})")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
