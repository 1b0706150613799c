"""Creating a model from a local weight file: seconds and growth of memory, beside the peer.

    .nox/imgzoo/bin/python benchmarks/create.py [--rounds 5] [--json out.json] [MODEL ...]

Both libraries read the same safetensors file in processes of their own (the parity environment has both), in turn.
Memory is what the process grew by while creating, at its highest. Ours maps the file: pages count when first used.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEER_PYTHON = ROOT / ".nox" / "parity" / "bin" / "python"
MODELS = ("resnet50", "vit_base_patch16_224", "efficientnet_b0")
LARGE = ("vit_large_patch16_224", "convnext_large")
CHILD = """
import json, resource, sys, threading, time
import torch
which, name, file = sys.argv[1:4]
torch.set_num_threads(1)
if which == "ours":
    import imgzoo
    def create(): return imgzoo.create_model(name, pretrained=file)
else:
    import timm
    def create(): return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": file})
def resident():
    with open("/proc/self/statm") as f: return int(f.read().split()[1]) * resource.getpagesize()
create()  # imports, caches
import gc; gc.collect()
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
    start = time.process_time(); create(); times.append(time.process_time() - start)
print(json.dumps({"seconds": min(times), "growth": growth}))
"""


def measure(which: str, name: str, file: Path) -> dict[str, float]:
    command = [str(PEER_PYTHON), "-c", CHILD, which, name, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def rows(names: list[str], rounds: int) -> list[dict[str, object]]:
    import imgzoo

    found: list[dict[str, object]] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            file = imgzoo.save_model(imgzoo.create_model(name), folder) / "model.safetensors"
            pairs = [(measure("ours", name, file), measure("peer", name, file)) for _ in range(rounds)]
        for key, unit, scale, target in (("seconds", "ms", 1e3, 10.0), ("growth", "MB", 1e-6, None)):
            ours = statistics.median(pair[0][key] for pair in pairs) * scale
            peer = statistics.median(pair[1][key] for pair in pairs) * scale
            bound = "building Python modules" if key == "seconds" else "buffers and module objects"
            found.append({"work": f"create {name} from a file", "what": key, "ours": ours, "peer": peer, "unit": unit,
                          "ratio": peer / max(ours, 1e-9), "target": target or 10.0, "bound": bound})  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=[*MODELS, *LARGE])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = rows(options.models, options.rounds)
    for row in found:
        print(f"{row['work']:42} {row['what']:8} ours {row['ours']:8.1f} {row['unit']}  peer {row['peer']:8.1f}  "
              f"{row['ratio']:6.1f}x")  # fmt: skip
    mean = math.exp(statistics.mean(math.log(float(row["ratio"])) for row in found if row["what"] == "seconds"))
    print(f"geometric mean of the times: {mean:.1f}x (target 10x)")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
