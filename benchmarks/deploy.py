"""`imgzoo.deploy` beside the peer's eager model: engine auto and each engine, fp32, bf16 and int8, 2 threads.

    .nox/imgzoo/bin/python benchmarks/deploy.py [--quick] [--json out.json] [MODEL ...]

Same weights and images; each side is a process of its own, since deploying also changes how a process keeps memory, and
they take turns, a pass each. Outputs of fp32 must stay within 1e-4 of the peer's, relative to the largest. int8 is
calibrated on seeded images: its speed is measured here, its accuracy in the tests. What bounds fp32 is measured in the
same run: the model's multiplications at the speed of a large matrix product.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from forward import MODELS, QUICK, limit
from rows import Contender, Row, main, mean, paired, seconds

BATCHES = (1, 8)


def peer(name: str, folder: Path, patience: float) -> dict[str, Any]:
    """What the peer answers: it makes the weights, the images and the answers that ours must give."""
    import timm
    import torch

    model, images = timm.create_model(name).eval(), torch.randn(max(BATCHES), 3, 224, 224)
    with torch.inference_mode():
        shared = {"weights": model.state_dict(), "images": images, "logits": model(images)}
    torch.save(shared, folder / "shared.pt")
    calls = {f"eager {batch}": lambda part=images[:batch]: seconds(lambda: model(part)) for batch in BATCHES}
    return {"ready": lambda: True, **calls}


def ours(name: str, folder: Path, patience: float) -> dict[str, Any]:
    """What our side answers: every engine's seconds, what auto chose, how far fp32 is off, and the bound."""
    import torch

    import imgzoo
    from imgzoo_data import resolve_data_config
    from imgzoo_train.engines.choosing import ENGINES
    from imgzoo_train.models.deployment import SLOW, needed
    from imgzoo_train.models.quantizing import Calibration

    shared = torch.load(folder / "shared.pt", weights_only=True)
    images, expected = shared["images"], shared["logits"]
    model = imgzoo.create_model(name)
    model.load_state_dict(shared["weights"])
    at_hand = [
        each
        for each, engine in ENGINES.items()
        if engine.missing(*needed(engine, "fp32")) is None and (patience > SLOW or not engine.slow)
    ]
    engines = {each: imgzoo.deploy(model, each, example=images[:2]) for each in at_hand}
    autos = {batch: imgzoo.deploy(model, "auto", example=images[:batch], patience=patience) for batch in BATCHES}
    config = resolve_data_config(model)
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (config.mean, config.std))
    calibrate = Calibration((images.sigmoid() - mean) / std, max_loss=1.0)
    made: dict[str, Any] = {}

    def low(precision: str) -> Any:
        if precision not in made:
            given = {"calibrate": calibrate} if precision == "int8" else {}
            made[precision] = imgzoo.deploy(model, "auto", precision=precision, example=images, **given)
        return made[precision]

    def gap(answers: Any) -> float:
        return float((answers - expected).abs().max() / expected.abs().max())

    def timed(deployed: Callable[[], Any], batch: int) -> Callable[[], float]:
        return lambda: seconds(lambda: deployed()(images[:batch]))

    found: dict[str, Any] = {}
    for batch in BATCHES:
        found[f"auto {batch}"] = timed(lambda batch=batch: autos[batch], batch)
        found |= {f"{each} {batch}": timed(lambda each=each: engines[each], batch) for each in engines}
        found |= {f"{each} {batch}": timed(lambda each=each: low(each), batch) for each in ("bf16", "int8")}
    return found | {
        "engines": lambda: at_hand,
        "difference": lambda: max(gap(deployed(images)) for deployed in autos.values()),
        "chosen": lambda: {batch: deployed.report for batch, deployed in autos.items()},
        "low": lambda: {each: low(each).report for each in ("bf16", "int8")},
        "limit": lambda: limit(model, images, False),
    }


def serve(who: str, name: str, folder: str, patience: float) -> None:
    """Answer each word on standard input; what is timed answers with its seconds."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    answers = {"ours": ours, "peer": peer}[who](name, Path(folder), patience)
    with torch.inference_mode():
        for line in sys.stdin:
            print(json.dumps(answers[line.strip()]()), flush=True)


def measure(name: str, rounds: int, patience: float) -> dict[str, Any]:
    """Paired seconds of one model, after a pass that warms up; each round asks every engine and the peer in turn."""
    with tempfile.TemporaryDirectory() as folder:
        right = Contender(__file__, "peer", name, folder, patience)
        right.ask("ready")
        left = Contender(__file__, "ours", name, folder, patience)
        found = {word: left.ask(word) for word in ("engines", "difference", "chosen", "low", "limit")}
        words = ("auto", *found["engines"], "bf16", "int8")
        for batch in BATCHES:
            turns = [
                {word: left.ask(f"{word} {batch}") for word in words} | {"peer": right.ask(f"eager {batch}")}
                for _ in range(rounds + 1)
            ]
            found[batch] = turns[1:]
        left.close()
        right.close()
    return found


def rows(args: argparse.Namespace) -> Iterator[Row]:
    groups: dict[str, list[Row]] = {"fp32": [], "bf16": [], "int8": []}
    beside: list[float] = []
    for name in args.models or (QUICK if args.quick else MODELS):
        found = measure(name, *((3, 20.0) if args.quick else (9, 600.0)))
        if found["difference"] > 1e-4:
            sys.exit(f"{name} deployed differs by {found['difference']:.1e} from the peer's model")
        for batch in BATCHES:
            label, turns = f"deployed {name}, batch {batch}", found[batch]
            middle = {each: statistics.median(turn[each] for turn in turns) for each in ("auto", *found["engines"])}
            best = min(found["engines"], key=lambda each: middle[each])
            beside.append(middle["auto"] / middle[best])
            report = found["chosen"][str(batch)]
            bound = (
                f"{report['engine']}, made in {report['compile_seconds']:.0f} s, {report['memory_mb']:.0f} MiB; "
                f"best: {best} {1e3 * middle[best]:.3g} ms; outputs within {found['difference']:.0e}"
            )
            if batch == max(BATCHES):
                bound += f"; multiplications: {found['limit']:.0f} ms at best"
            for word, target in (("fp32", 1.0), ("bf16", None), ("int8", None)):
                pairs = [(turn["auto" if word == "fp32" else word], turn["peer"]) for turn in turns]
                low = found["low"].get(word)
                said = bound if low is None else f"{low['engine']}, computed in {low['precision']}"
                groups[word].append(paired("deploy", f"{label}, {word}", "ms", pairs, target, said, 1e3))
                yield groups[word][-1]
    yield replace(mean("deploy", "deployed forward, fp32", groups["fp32"], 1.6, 1.0), bound=spoken(beside))
    yield replace(mean("deploy", "deployed forward, int8", groups["int8"], 2.5), bound=instructions())
    yield replace(mean("deploy", "deployed forward, bf16", groups["bf16"], 1.0), bound="used only where it is faster")


def spoken(beside: list[float]) -> str:
    """How auto stands to the best engine of each case."""
    return f"auto takes at most {max(beside):.2f} times as long as the best engine at hand"


def instructions() -> str:
    from imgzoo_train.engines.base import multiplies_bytes

    return "this processor has " + ("VNNI" if multiplies_bytes() else "no VNNI: the target is for those that have")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*")


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve(*json.loads(sys.argv[-1]))
    else:
        main(__doc__, rows, options)
