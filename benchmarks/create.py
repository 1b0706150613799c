"""Creating a model from a local weight file (CPU time, growth of memory) and without weights (seconds), and the peer.

    .nox/imgzoo/bin/python benchmarks/create.py [--quick] [--json out.json] [MODEL ...]

Both libraries read the same safetensors file in processes of their own (the parity environment has both), in turn.
Memory is what the process grew by while creating, at its highest. Ours reads a file of the user's into memory, and maps
one of the cache or of an installed distribution, whose pages count when they are first used (IMGZOO_MAP_WEIGHTS).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator

from rows import PEER_PYTHON, Row, main, mean, paired

MODELS = ("resnet50", "vit_base_patch16_224", "efficientnet_b0", "vit_large_patch16_224", "convnext_large")
UNTRAINED = ("resnet50", "vit_base_patch16_224", "efficientnet_b0", "convnext_base", "swin_tiny_patch4_window7_224")
CHILD = """
import gc, json, resource, sys, threading, time, warnings
import torch
warnings.simplefilter("ignore")
which, name, file = sys.argv[1:4]
clock = time.perf_counter
if file:
    torch.set_num_threads(1)
    clock = time.process_time
if which == "ours":
    import imgzoo
    def create(): return imgzoo.create_model(name, pretrained=file or False)
else:
    import timm
    options = {"pretrained": True, "pretrained_cfg_overlay": {"file": file}} if file else {}
    def create(): return timm.create_model(name, **options)
def resident():
    with open("/proc/self/statm") as f: return int(f.read().split()[1]) * resource.getpagesize()
create()  # imports, caches
gc.collect()
before, peak, stop = resident(), 0, False
def watch():
    global peak
    while not stop:
        peak = max(peak, resident())
        time.sleep(0.0005)
thread = threading.Thread(target=watch); thread.start()
model = create(); peak = max(peak, resident()); stop = True; thread.join()
growth = peak - before
times = []
for _ in range(5):
    start = clock(); create(); times.append(clock() - start)
print(json.dumps({"seconds": min(times), "growth": growth}))
"""


KINDS = {"read": ("a file of the user's", 5.0, 2.0), "mapped": ("a file of the cache", 30.0, 10.0)}
"""How ours takes a file: what it is then, and how many times less time and memory it is to take on average."""


def measure(which: str, name: str, file: str = "", mapped: bool = False) -> dict[str, float]:
    command = [str(PEER_PYTHON), "-c", CHILD, which, name, file]
    environment = os.environ | {"IMGZOO_MAP_WEIGHTS": str(int(mapped))}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def rows(args: argparse.Namespace) -> Iterator[Row]:
    import imgzoo

    count = 1 if args.quick else 3
    times: dict[str, list[Row]] = {kind: [] for kind in KINDS}
    growths: dict[str, list[Row]] = {kind: [] for kind in KINDS}
    untrained = []
    for name in args.models or (("resnet50",) if args.quick else MODELS):
        with tempfile.TemporaryDirectory() as folder:
            file = str(imgzoo.save_model(imgzoo.create_model(name), folder) / "model.safetensors")
            found = [
                {kind: measure("ours", name, file, kind == "mapped") for kind in KINDS}
                | {"peer": measure("peer", name, file)}
                for _ in range(count)
            ]
        for kind, (place, _, _) in KINDS.items():
            pairs = {key: [(row[kind][key], row["peer"][key]) for row in found] for key in ("seconds", "growth")}
            bound = "building Python modules" if kind == "mapped" else "reading the file"
            work = f"create {name} from {place}"
            times[kind].append(paired("create", work, "ms", pairs["seconds"], None, bound, 1e3))
            growths[kind].append(paired("create", f"memory growth: {work}", "MB", pairs["growth"], None, bound, 1e-6))
            yield from (times[kind][-1], growths[kind][-1])
    for name in args.models or (("resnet50",) if args.quick else UNTRAINED):
        pairs = [(measure("ours", name)["seconds"], measure("peer", name)["seconds"]) for _ in range(count)]
        untrained.append(paired("create", f"create {name} without weights", "ms", pairs, 1.5, "random numbers", 1e3))
        yield untrained[-1]
    for kind, (place, faster, smaller) in KINDS.items():
        yield mean("create", f"create a model from {place}", times[kind], faster)
        yield mean("create", f"memory growth: create a model from {place}", growths[kind], smaller)
    yield mean("create", "create a model without weights", untrained, 1.5)


if __name__ == "__main__":
    main(__doc__, rows, lambda parser: parser.add_argument("models", nargs="*"))
