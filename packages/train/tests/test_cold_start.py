"""Commands that import torch hold the garbage collector meanwhile, and give it back."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, gc, sys

def importing():
    torch = sys.modules.get("torch")
    return torch is not None and torch.__spec__._initializing

seen = []
gc.callbacks.append(lambda phase, info: seen.append(phase) if importing() else None)
atexit.register(lambda: print(f"{len(seen)} collections, torch {'torch' in sys.modules}, enabled {gc.isenabled()}"))
from imgzoo.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "{photo}", "--model", "no_such_model"),
        ("validate", "no_such_model", "--data", "digits:"),
        ("embed", "digits", "--model", "no_such_model", "--output", "{folder}/features.npy"),
        ("export", "no_such_model", "--output", "{folder}/net.onnx"),
        ("average", "{folder}/no_such_run", "--output", "{folder}/mean.safetensors"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_nothing_is_collected_while_torch_is_imported(arguments, tmp_path, photo):
    given = [each.format(folder=tmp_path, photo=photo) for each in arguments]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *given], capture_output=True, text=True)
    assert done.returncode == 2 and "no_such" in done.stderr, done.stderr
    assert done.stdout.splitlines()[-1] == "0 collections, torch True, enabled True"


@pytest.fixture
def photo(tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"
