"""Install combinations of the built wheels into clean environments and use them as a newcomer would.

    python tools/check_wheels.py dist

The environments borrow torch and other third-party libraries from the running one, and nothing of imgzoo.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ALL = ("core", "layers", "archs_cnn", "archs_transformer", "archs_efficientnet", "optim", "data", "train", "timm")

COMPILED = """
from imgzoo_data.transforms import twopass
from imgzoo_optim import kernels
from imgzoo_optim.rules.adamw import AdamW
print(twopass._compiled() is not None, kernels.compiled(AdamW.kernel, True) is not None)
"""


def make_environment(folder: Path, wheels: list[Path], borrow: bool = True) -> Path:
    """A new environment with these wheels; returns its `bin`."""
    venv.create(folder, with_pip=True)
    site = next(folder.glob("lib/python*/site-packages"))
    if borrow:
        below = folder / "below"
        below.mkdir()
        for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
            if entry.suffix != ".pth" and not entry.name.lower().lstrip("_").startswith("imgzoo"):
                (below / entry.name).symlink_to(entry)
        (site / "shared.pth").write_text(f"import site; site.addsitedir({str(below)!r})\n")
    python = folder / "bin" / "python"
    if not borrow:
        subprocess.run([python, "-m", "pip", "install", "-q", "pluggy", "click", "importlib-metadata"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *map(str, wheels)], check=True)
    return folder / "bin"


def run(command: list[str | Path], expect: int = 0) -> str:
    """Output and errors of a command that must end with `expect`."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir())
    text = done.stdout + done.stderr
    if done.returncode != expect or "Traceback" in text:
        raise SystemExit(f"{command} ended with {done.returncode}, expected {expect}:\n{text}")
    return text


def expect(text: str, *parts: str) -> None:
    for part in parts:
        if part not in text:
            raise SystemExit(f"expected '{part}' in:\n{text}")


def core_alone(bin: Path) -> None:
    """Without any other package and without torch, the core lists plugins and says what to install."""
    expect(run([bin / "imgzoo", "plugins"]), "core")
    expect(run([bin / "imgzoo", "info", "resnet50"], expect=2), "imgzoo-archs-cnn")
    expect(run([bin / "imgzoo", "train", "resnet50"], expect=2), "imgzoo-train")
    run([bin / "python", "-c", "import imgzoo, sys; assert 'torch' not in sys.modules"])


def core_and_transformers(bin: Path) -> None:
    """A ViT is created; no convolutional family is known, and the error names the package that brings it."""
    code = "import imgzoo; m = imgzoo.create_model('vit_tiny_patch16_224', num_classes=3); print(m.num_classes)"
    expect(run([bin / "python", "-c", code]), "3")
    listed = run([bin / "imgzoo", "list", "--json"])
    names = {row["name"] for row in json.loads(listed)}
    if "resnet50" in names or "vit_base_patch16_224" not in names:
        raise SystemExit("imgzoo list shows the wrong families")
    code = "import imgzoo\ntry: imgzoo.create_model('resnet50')\nexcept imgzoo.errors.UnknownNameError as e: print(e)"
    expect(run([bin / "python", "-c", "import imgzoo.errors; " + code]), "imgzoo-archs-cnn")


def everything(bin: Path) -> None:
    expect(run([bin / "imgzoo", "list", "resnet5*"]), "resnet50")
    run([bin / "imgzoo", "doctor", "--strict"])
    expect(run([bin / "imgzoo", "train", "--help"]), "--epochs")
    code = "import imgzoo_timm; imgzoo_timm.install(); import timm; print(timm.create_model('resnet18').default_cfg)"
    expect(run([bin / "python", "-c", code]), "a1_in1k")
    if shutil.which("cc"):  # then the wheels bring their C code compiled, and need no compiler
        bare = ["env", "CC=none", "PATH=/nonexistent", f"IMGZOO_CACHE={tempfile.gettempdir()}/none"]
        expect(run([*bare, bin / "python", "-c", COMPILED]), "True True")


def main(dist: str) -> None:
    wheels = {name: next(Path(dist).glob(f"imgzoo_{name}-*.whl")) for name in ALL}
    for name in ALL:
        if not list(Path(dist).glob(f"imgzoo_{name}-*.tar.gz")):
            raise SystemExit(f"{name} has no sdist")
    cases = (
        ("core alone, no torch", ("core",), False, core_alone),
        ("core and archs-transformer", ("core", "layers", "archs_transformer"), True, core_and_transformers),
        ("all nine", ALL, True, everything),
    )
    for title, names, borrow, check in cases:
        with tempfile.TemporaryDirectory() as folder:
            check(make_environment(Path(folder) / "env", [wheels[name] for name in names], borrow))
        print(f"{title}: works")


if __name__ == "__main__":
    main(*sys.argv[1:])
