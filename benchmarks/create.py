"""Creating a model from a local weight file (CPU time, growth of memory) and without weights (seconds), and the peer.

    .nox/imgzoo/bin/python benchmarks/create.py [--quick] [--json out.json] [MODEL ...]

Both libraries read the same safetensors file in processes of their own (the parity environment has both), in turn.
Memory is what the process grew by while creating, at its highest. Ours maps the file: pages count when first used.
"""

from __future__ import annotations

import argparse
import json
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


def measure(which: str, name: str, file: str) -> dict[str, float]:
    command = [str(PEER_PYTHON), "-c", CHILD, which, name, file]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def rounds(name: str, file: str, count: int) -> list[dict[str, tuple[float, float]]]:
    found = []
    for _ in range(count):
        ours, peer = measure("ours", name, file), measure("peer", name, file)
        found.append({k: (ours[k], peer[k]) for k in ours})
    return found


def rows(args: argparse.Namespace) -> Iterator[Row]:
    import imgzoo

    count = 1 if args.quick else 3
    times, growths, untrained = [], [], []
    for name in args.models or (("resnet50",) if args.quick else MODELS):
        with tempfile.TemporaryDirectory() as folder:
            file = imgzoo.save_model(imgzoo.create_model(name), folder) / "model.safetensors"
            found = rounds(name, str(file), count)
        work, bound = f"create {name} from a file", "building Python modules"
        times.append(paired("create", work, "ms", [row["seconds"] for row in found], 10.0, bound, 1e3))
        growth = [row["growth"] for row in found]
        work = f"memory growth of creating {name} from a file"
        growths.append(paired("create", work, "MB", growth, 10.0, "buffers and module objects", 1e-6))
        yield from (times[-1], growths[-1])
    for name in args.models or (("resnet50",) if args.quick else UNTRAINED):
        pairs = [row["seconds"] for row in rounds(name, "", count)]
        untrained.append(paired("create", f"create {name} without weights", "ms", pairs, 1.5, "random numbers", 1e3))
        yield untrained[-1]
    yield mean("create", "create a model from a local file", times, 10.0)
    yield mean("create", "memory growth of creating from a file", growths, 10.0)
    yield mean("create", "create a model without weights", untrained, 1.5)


if __name__ == "__main__":
    main(__doc__, rows, lambda parser: parser.add_argument("models", nargs="*"))
