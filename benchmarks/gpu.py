"""What a GPU run compares: bf16, channels-last, compile and CUDA graphs. Without a GPU, a reduced form on the CPU.

    .nox/imgzoo/bin/python benchmarks/gpu.py [--quick] [--json out.json]

On the CPU it runs the same code with a small model, to see that each setting works and agrees with eager fp32; CUDA
graphs are left out. No figure of a GPU is claimed before one was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rows import Row, cases, main, paired

SETTINGS = ("eager fp32", "bf16", "bf16 channels-last", "bf16 channels-last compiled")
MODELS = {"cuda": ("resnet50", "vit_base_patch16_224", "convnext_base", "efficientnet_b0"), "cpu": ("resnet18",)}
BATCH = {"cuda": 256, "cpu": 4}


def prepare(model: Any, x: Any, setting: str) -> Callable[[], Any]:
    """A call that runs the model once in a setting; on a GPU the last two are captured as CUDA graphs."""
    import torch

    model = model.eval()
    if "channels-last" in setting:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    if "bf16" in setting:
        model, x = model.bfloat16(), x.bfloat16()
    if "compiled" in setting:
        model = torch.compile(model, mode="max-autotune-no-cudagraphs" if x.is_cuda else None)

    def call() -> Any:
        with torch.inference_mode():
            return model(x)

    if not x.is_cuda or "channels-last" not in setting:
        return call
    for _ in range(3):  # CUDA graphs want a warm allocator
        call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def seconds(call: Callable[[], Any], cuda: bool) -> float:
    import torch

    start = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(rounds: int) -> None:
    """One JSON line a model and setting: paired seconds of ours and the peer's."""
    import timm
    import torch

    import imgzoo

    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    for name in MODELS[device]:
        for setting in SETTINGS:
            x = torch.randn(BATCH[device], 3, 224, 224, device=device)
            peer, ours = timm.create_model(name), imgzoo.create_model(name)
            ours.load_state_dict(peer.state_dict())
            calls = [prepare(model.to(device), x, setting) for model in (ours, peer)]
            for call in calls:
                seconds(call, cuda)
            times = [[seconds(call, cuda) for call in calls] for _ in range(rounds)]
            print(json.dumps({"work": f"{device}: {name}, {setting}, batch {len(x)}", "times": times}), flush=True)


def rows(args: argparse.Namespace) -> Iterator[Row]:
    for case in cases(__file__, "--rounds", 3 if args.quick else 9):
        if case["work"].startswith("cpu"):
            bound = "a reduced form on the CPU; a GPU run needs one CUDA device with 16 GB, its torch, and this command"
        else:
            bound = "the GPU"
        yield paired("gpu", case["work"], "ms", case["times"], None, bound, 1e3)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=9, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)


if __name__ == "__main__":
    if "--worker" in sys.argv:
        inner = argparse.ArgumentParser()
        options(inner)
        measure(inner.parse_args().rounds)
    else:
        main(__doc__, rows, options)
