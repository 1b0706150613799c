"""One mid-size network of every family beside the peer: fp32, 2 threads, same weights, same images.

    .nox/imgzoo/bin/python benchmarks/families.py [--only KIND] [--quick] [--json out.json] [MODEL ...]

Each in a process of the parity environment that holds both models and runs them in turn, so that noise falls on both:
creation from a file, the eager forward pass, the forward pass of what `imgzoo.deploy` makes against the peer's eager
one, a training step, and its peak memory. Geometric means by package, and over all with the worst five by name.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from forward import pair, step
from rows import Row, cases, main, mean, paired, peak_memory, seconds

FACTS = Path(__file__).parents[1] / "packages"
QUICK = ("shvit_s1", "hgnet_tiny", "lcnetv2_small")
BATCH = 2
PATIENCE = 4.0
"""Seconds of one kind of work after which no more rounds begin."""
KINDS = {
    "creation": ("ms", 1e3, 1.1, None),
    "forward": ("ms", 1e3, 1.1, 0.95),
    "deployed forward": ("ms", 1e3, 1.1, 0.95),
    "training step": ("ms", 1e3, 1.0, None),
    "peak memory": ("MB", 1e-6, 1.0, None),
}
"""What is measured, its unit and scale, and what the mean over all and the least are to be."""


def middle() -> dict[str, str]:
    """Of every family the name whose parameters come nearest to 15 million, and its package; in order of families."""
    found = {}
    for package, sizes in facts():
        found[min(sizes, key=lambda name: abs(sizes[name] - 15e6))] = package
    return found


def facts() -> Iterator[tuple[str, dict[str, int]]]:
    """The package and the parameters of each name of every family."""
    for path in sorted(FACTS.glob("archs-*/tests/facts/*.json"), key=lambda path: path.stem):
        yield path.parents[2].name, {name: row[0] for name, row in json.loads(path.read_text()).items()}


def measure(name: str, kinds: list[str], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Paired costs of one network, ours and the peer's."""
    import timm
    import torch
    from safetensors.torch import save_file

    import imgzoo
    from imgzoo.options import parameters_of

    torch.set_num_threads(2)  # with one, and fewer than 16 images, torch unrolls the image for both sides
    taken, _ = parameters_of(imgzoo.get_spec(name).load())
    ours, peer = pair(name, **({"drop_path_rate": 0.0} if "drop_path_rate" in taken else {}))
    x = torch.randn(BATCH, *ours.pretrained_cfg["input_size"])

    def creation() -> list[tuple[float, float]]:
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/model.safetensors"
            save_file({key: value.contiguous().clone() for key, value in peer.state_dict().items()}, file)
            return in_turn(
                lambda: imgzoo.create_model(name, pretrained=file),
                lambda: timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": file}),
                rounds,
            )

    def deployed() -> list[tuple[float, float]]:
        return forwards(imgzoo.deploy(ours.eval(), "auto", example=x, patience=20.0), peer, x, rounds)

    def steps() -> list[Callable[[], float]]:
        return [partial(step, model.train(), x, True) for model in (ours, peer)]

    work: dict[str, Callable[[], list[tuple[float, float]]]] = {
        "creation": creation,
        "forward": lambda: forwards(ours, peer, x, rounds),
        "deployed forward": deployed,
        "training step": lambda: in_turn(*steps(), rounds),
        "peak memory": lambda: [tuple(peak_memory(each)[0] for each in steps())],
    }
    return {kind: work[kind]() for kind in kinds}


def forwards(ours: Any, peer: Any, x: Any, rounds: int) -> list[tuple[float, float]]:
    return in_turn(partial(step, ours.eval(), x, False), partial(step, peer.eval(), x, False), rounds)


def in_turn(ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """Seconds of both, round by round, three at least while there is time; each has run once before."""
    ours(), peer()
    found: list[tuple[float, float]] = []
    while len(found) < 3 or (len(found) < rounds and sum(map(sum, found)) < PATIENCE):
        found.append((seconds(ours), seconds(peer)))
    return found


def rows(args: argparse.Namespace) -> Iterator[Row]:
    found = []
    for name in args.models or (QUICK if args.quick else middle()):
        for case in cases(
            __file__, name, "--rounds", 3 if args.quick else 9, *(f"--only={kind}" for kind in args.only)
        ):
            for kind, pairs in case.items():
                unit, scale, _, least = KINDS[kind]
                found.append(paired("families", f"{kind} of {name}", unit, pairs, least, "", scale))
                yield found[-1]
    yield from means(found)


def means(found: list[Row]) -> Iterator[Row]:
    """The geometric means of each kind by package and over all, with the worst five by name."""
    packages = {name: package for package, sizes in facts() for name in sizes}
    for kind, (_, _, target, least) in KINDS.items():
        every = {row.work.rpartition(" ")[2]: row for row in found if row.work.startswith(f"{kind} of ")}
        groups: dict[str, list[Row]] = {}
        for name, row in every.items():
            groups.setdefault(packages[name], []).append(row)
        if not every:
            continue
        for package, group in groups.items():
            label = f"{kind}, {len(group)} families of {package}"
            yield replace(mean("families", label, group, target), bound="", headline=False)
        worst = sorted(every, key=lambda name: every[name].ratio or 0)[:5]
        told = "worst: " + ", ".join(f"{name} {every[name].ratio:.2f}x" for name in worst)
        yield replace(mean("families", f"{kind}, {len(every)} families", [*every.values()], target, least), bound=told)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*")
    parser.add_argument("--only", action="append", choices=KINDS, default=[], help="measure this alone (repeatable)")
    parser.add_argument("--rounds", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)


if __name__ == "__main__":
    if "--worker" in sys.argv:
        inner = argparse.ArgumentParser()
        options(inner)
        inside = inner.parse_args()
        print(json.dumps(measure(inside.worker, inside.only or [*KINDS], inside.rounds)), flush=True)
    else:
        main(__doc__, rows, options)
