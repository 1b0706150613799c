"""`imgzoo.deploy`: the deployed model beside the peer's eager one, fp32 and bf16, 2 threads, same weights and batch.

    .nox/imgzoo/bin/python benchmarks/deploy.py [--quick] [--json out.json] [MODEL ...]

Each side is a process of its own, since deploying also changes how a process keeps memory; they take turns, a pass
each. Outputs of fp32 must stay within 1e-4 of the peer's, relative to the largest. What bounds both is measured in the
same run: the model's multiplications at the speed of a large matrix product, and what bf16 does to such a product.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from forward import BATCH, MODELS, QUICK, limit
from rows import Contender, Row, main, mean, paired, seconds


def peer(name: str, folder: Path) -> dict[str, Any]:
    """What the peer answers: it makes the weights, the images and the answers that ours must give."""
    import timm
    import torch

    model, images = timm.create_model(name).eval(), torch.randn(BATCH, 3, 224, 224)
    with torch.inference_mode():
        shared = {"weights": model.state_dict(), "images": images, "logits": model(images)}
    torch.save(shared, folder / "shared.pt")
    return {"ready": lambda: True, "eager": lambda: seconds(lambda: model(images))}


def ours(name: str, folder: Path) -> dict[str, Any]:
    """What our side answers: the two deployed models, how far fp32 is off, and the bounds."""
    import torch

    import imgzoo

    shared = torch.load(folder / "shared.pt", weights_only=True)
    images, expected = shared["images"], shared["logits"]
    model = imgzoo.create_model(name)
    model.load_state_dict(shared["weights"])
    deployed = imgzoo.deploy(model)
    half = imgzoo.deploy(model, dtype=torch.bfloat16)
    a = torch.randn(512, 512)
    return {
        "difference": lambda: float((deployed(images) - expected).abs().max() / expected.abs().max()),
        "fp32": lambda: seconds(lambda: deployed(images)),
        "bf16": lambda: seconds(lambda: half(images)),
        "computed": lambda: str(half.dtype).removeprefix("torch."),
        "products": lambda: [seconds(lambda: a @ a, 3), seconds(lambda: a.bfloat16() @ a.bfloat16(), 3)],
        "limit": lambda: limit(model, images, False),
    }


def serve(who: str, name: str, folder: str) -> None:
    """Answer each word on standard input; what is timed answers with its seconds."""
    import torch

    torch.set_num_threads(2)
    answers = {"ours": ours, "peer": peer}[who](name, Path(folder))
    with torch.inference_mode():
        for line in sys.stdin:
            print(json.dumps(answers[line.strip()]()), flush=True)


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Paired seconds of one model in both types, after a pass that warms up, and what bounds them."""
    with tempfile.TemporaryDirectory() as folder:
        right = Contender(__file__, "peer", name, folder)
        right.ask("ready")
        left = Contender(__file__, "ours", name, folder)
        found = {word: left.ask(word) for word in ("difference", "computed", "products", "limit")}
        for word in ("fp32", "bf16"):
            found[word] = [(left.ask(word), right.ask("eager")) for _ in range(rounds + 1)][1:]
        left.close()
        right.close()
    return found


def rows(args: argparse.Namespace) -> Iterator[Row]:
    whole, half, reachable = [], [], []
    for name in args.models or (QUICK if args.quick else MODELS):
        found = measure(name, 3 if args.quick else 9)
        if found["difference"] > 1e-4:
            sys.exit(f"{name} deployed differs by {found['difference']:.1e} from the peer's model")
        label, best = f"deployed {name}, batch {BATCH}", f"multiplications: {found['limit']:.0f} ms at best"
        bound = f"{best}; outputs within {found['difference']:.0e}"
        whole.append(paired("deploy", f"{label}, fp32", "ms", found["fp32"], 1.3, bound, 1e3))
        fp32, bf16 = found["products"]
        times = f"a bf16 product takes {bf16 / fp32:.3g} times as long as fp32 here"
        bound = f"computed in {found['computed']}, {times}; {best}"
        half.append(paired("deploy", f"{label}, bf16", "ms", found["bf16"], 2.0, bound, 1e3))
        reachable.append(1e3 * statistics.median(peer for _, peer in found["fp32"] + found["bf16"]) / found["limit"])
        yield from (whole[-1], half[-1])
    most = statistics.geometric_mean(reachable)
    bound = f"multiplications: at the speed of a large fp32 product the mean were {most:.2f}x"
    yield replace(mean("deploy", "deployed forward, fp32", whole, 1.3), bound=bound)
    if found["computed"] == "float32":
        bound += "; this processor has no bf16 instructions"
    yield replace(mean("deploy", "deployed forward, bf16", half, 2.0), bound=bound)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*")


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve(*json.loads(sys.argv[-1]))
    else:
        main(__doc__, rows, options)
