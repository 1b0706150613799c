"""CPU time until a user sees something: listing all models, importing the library, naming what one image shows.

    .nox/imgzoo/bin/python benchmarks/start.py [--quick] [--json out.json]

Each figure is the CPU time of a child process (user and system), so that what else runs counts little.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator

from rows import PEER_PYTHON, Row, alone, main, paired

LIST = ("-m", "imgzoo", "list")
PEER_LIST = ("-W", "ignore", "-c", "import timm; print(len(timm.list_models()))")
BOUND = "starting Python, reading the catalogs"
PREPARE = """
import sys, imgzoo, numpy as np
from PIL import Image
imgzoo.save_model(imgzoo.create_model("resnet50"), sys.argv[1] + "/model")
Image.fromarray(np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)).save(sys.argv[1] + "/photo.jpg")
"""
PEER_PREDICT = """
import sys, timm, torch
from PIL import Image
model = timm.create_model("local-dir:" + sys.argv[1] + "/model", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
with torch.inference_mode():
    answers = model(transform(Image.open(sys.argv[1] + "/photo.jpg")).unsqueeze(0)).softmax(-1).topk(5)
print(answers)
"""


def cpu_seconds(*arguments: str) -> float:
    """CPU time of one child process of the environment that holds both libraries, its bytecode cached as pip does."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(PEER_PYTHON), *arguments], stdout=subprocess.DEVNULL, check=True, env=environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def rows(args: argparse.Namespace) -> Iterator[Row]:
    pairs = [(cpu_seconds(*LIST), cpu_seconds(*PEER_LIST)) for _ in range(2 if args.quick else 5)]
    yield alone("start", "imgzoo list, all names, CPU time", "s", min(ours for ours, _ in pairs), 0.2, BOUND, True)
    yield paired("start", "list all models from a shell, CPU time", "s", pairs, 15, BOUND)
    commands = ("-c", "import imgzoo"), ("-W", "ignore", "-c", "import timm")
    pairs = [(cpu_seconds(*commands[0]), cpu_seconds(*commands[1])) for _ in range(2 if args.quick else 5)]
    yield paired("start", "import, CPU time", "s", pairs, 15, "starting Python")
    with tempfile.TemporaryDirectory() as folder:
        cpu_seconds("-c", PREPARE, folder)
        ours = ("-m", "imgzoo", "predict", f"{folder}/photo.jpg", "--model", f"{folder}/model")
        theirs = ("-W", "ignore", "-c", PEER_PREDICT, folder)
        pairs = [(cpu_seconds(*ours), cpu_seconds(*theirs)) for _ in range(3 if args.quick else 7)]
    yield paired("start", "predict one image by resnet50, cold, CPU time", "s", pairs, 2, "importing torch")


if __name__ == "__main__":
    main(__doc__, rows)
