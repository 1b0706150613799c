"""`imgzoo.deploy`: the deployed model beside the peer's eager one, fp32 and bf16, 2 threads, same weights and batch.

    .nox/imgzoo/bin/python benchmarks/deploy.py [--quick] [--json out.json] [MODEL ...]

Outputs of fp32 must stay within 1e-4 of the peer's, relative to the largest. What two cores can gain from bf16 is
measured in the same run, as a matrix product in both types.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from functools import partial

from forward import BATCH, MODELS, QUICK, limit, pair
from rows import Row, cases, main, mean, paired


def measure(names: list[str], rounds: int) -> None:
    """One JSON line a model: paired seconds of the deployed model and the peer, in both types, and their difference."""
    import torch

    import imgzoo

    torch.set_num_threads(2)
    a = torch.randn(2048, 2048)
    products = {"fp32": seconds(lambda: a @ a), "bf16": seconds(lambda: a.bfloat16() @ a.bfloat16())}
    for name in names:
        ours, peer = pair(name)
        x = torch.randn(BATCH, 3, 224, 224)
        with torch.inference_mode(False):
            models = [imgzoo.deploy(ours.eval()), imgzoo.deploy(ours, dtype=torch.bfloat16), peer.eval()]
        with torch.inference_mode():
            expected = models[2](x)
            difference = ((models[0](x) - expected).abs().max() / expected.abs().max()).item()
            whole = [[seconds(partial(models[i], x), 1) for i in (0, 2)] for _ in range(rounds)]
            half = [[seconds(partial(models[i], x), 1) for i in (1, 2)] for _ in range(3)]
        case = {"name": name, "fp32": whole, "bf16": half, "difference": difference, "products": products}
        print(json.dumps(case | {"limit": limit(peer, x, False)}), flush=True)


def seconds(call, count: int = 3) -> float:
    best = float("inf")
    for _ in range(count):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def rows(args: argparse.Namespace) -> Iterator[Row]:
    names = args.models or list(QUICK if args.quick else MODELS)
    whole, half = [], []
    for found in cases(__file__, "--rounds", 3 if args.quick else 7, *names):
        if found["difference"] > 1e-4:
            sys.exit(f"{found['name']} deployed differs by {found['difference']:.1e} from the peer's model")
        label = f"deployed {found['name']}, batch {BATCH}"
        bound = f"multiplications: {found['limit']:.0f} ms at best; outputs within {found['difference']:.0e}"
        whole.append(paired("deploy", f"{label}, fp32", "ms", found["fp32"], 1.3, bound, 1e3))
        gain = found["products"]["fp32"] / found["products"]["bf16"]
        bound = f"this processor: a bf16 matrix product is {gain:.2f}x as fast as fp32"
        half.append(paired("deploy", f"{label}, bf16", "ms", found["bf16"], 2.0, bound, 1e3))
        yield from (whole[-1], half[-1])
    yield mean("deploy", "deployed forward, fp32", whole, 1.3)
    yield mean("deploy", "deployed forward, bf16", half, 2.0)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*")
    parser.add_argument("--rounds", type=int, default=7, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)


if __name__ == "__main__":
    if "--worker" in sys.argv:
        inner = argparse.ArgumentParser()
        options(inner)
        inside = inner.parse_args()
        measure(inside.models, inside.rounds)
    else:
        main(__doc__, rows, options)
