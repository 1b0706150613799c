"""Install combinations of the built wheels into clean environments and use them as a newcomer would.

    python tools/check_wheels.py dist

The environments borrow torch and other third-party libraries from the running one, and nothing of imgzoo.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ALL = ("core", "layers", "archs_cnn", "archs_transformer", "archs_efficientnet", "optim", "data", "train", "timm")
USUAL = {f"imgzoo-{name.replace('_', '-')}" for name in ALL if name != "timm"}
TRIO = ("core", "layers", "archs_transformer")

COMPILED = """
from imgzoo_data.transforms import compiled
from imgzoo_optim import kernels
from imgzoo_optim.rules.adamw import AdamW
print(compiled._compiled() is not None, kernels.compiled(AdamW.kernel, True) is not None)
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
    if wheels:
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


def at_version(wheel: Path, version: str, folder: Path) -> Path:
    """A copy of a wheel, in `folder`, that says another version of itself and asks for the same siblings."""
    name, old, *rest = wheel.name.split("-")
    copy = folder / "-".join((name, version, *rest))
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(copy, "w") as target:
        for entry in source.namelist():
            data = source.read(entry)
            if entry.endswith((".dist-info/METADATA", ".dist-info/RECORD")):
                text = data.decode().replace(f"{name}-{old}.dist-info", f"{name}-{version}.dist-info")
                data = re.sub(rf"^Version: {re.escape(old)}$", f"Version: {version}", text, flags=re.MULTILINE).encode()
            target.writestr(entry.replace(f"{name}-{old}.dist-info", f"{name}-{version}.dist-info"), data)
    return copy


def other_versions(wheels: dict[str, Path]) -> None:
    """An older core runs newer networks, a newer one older networks; what the pins forbid pip refuses."""
    for title, core, archs in (("an older core", "0.1.0", "0.9.0"), ("a newer core", "0.9.0", "0.1.0")):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            chosen = [at_version(wheels[name], core if name == "core" else archs, folder) for name in TRIO]
            bin = make_environment(folder / "env", chosen)
            core_and_transformers(bin)
            expect(run([bin / "imgzoo", "plugins"]), archs)
            expect(run([bin / "python", "-c", "import imgzoo; print(imgzoo.__version__)"]), core)
            run([bin / "imgzoo", "doctor", "--strict", "requirements", "plugins"])
        print(f"{title} ({core}) and archs-transformer {archs}: works")
    with tempfile.TemporaryDirectory() as scratch:
        chosen = [at_version(wheels[name], "1.0.0" if name == "core" else "0.1.0", Path(scratch)) for name in TRIO]
        expect(resolved("imgzoo-archs-transformer", chosen, 1), "No matching distribution", "imgzoo-core<1")
    print("core 1.0.0 and archs-transformer 0.1.0: refused by pip")


def resolved(name: str, wheels: list[Path], status: int = 0) -> str:
    """What pip says it would install for a name, of these wheels alone; stubs stand for what is not imgzoo's."""
    with tempfile.TemporaryDirectory() as folder:
        for wheel in wheels:
            shutil.copy(wheel, folder)
            for needed in requirements(wheel):
                write_stub(needed, Path(folder))
        alone = ["env", f"PIP_CONFIG_FILE={os.devnull}", sys.executable, "-m", "pip", "install", "--isolated"]
        return run([*alone, "--dry-run", "--ignore-installed", "--no-index", "--find-links", folder, name], status)


def requirements(wheel: Path) -> list[str]:
    """Names of the distributions that a wheel asks for, imgzoo's left out."""
    with zipfile.ZipFile(wheel) as file:
        entry = next(each for each in file.namelist() if each.endswith(".dist-info/METADATA"))
        lines = re.findall(r"^Requires-Dist: ([\w.-]+)", file.read(entry).decode(), re.MULTILINE)
    return [name for name in lines if not name.startswith("imgzoo")]


def write_stub(name: str, folder: Path) -> None:
    """A wheel of a late version that holds nothing."""
    stem = f"{name.replace('-', '_')}-999"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as file:
        file.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 999\n")
        file.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{stem}.dist-info/RECORD", "")


def usual_set(wheels: dict[str, Path]) -> None:
    """`pip install imgzoo` brings everything but timm's names; with the extra it brings those too."""
    for name, extra in (("imgzoo", set()), ("imgzoo[timm]", {"imgzoo-timm"})):
        found = set(
            re.findall(r"\b(imgzoo(?:-[a-z]+)*)-[\d.]+\d\b", resolved(name, [*wheels.values()]).splitlines()[-1])
        )
        if found != {"imgzoo", *USUAL} | extra:
            raise SystemExit(f"pip install {name} brought {', '.join(sorted(found))}")
        print(f"pip install {name}: brings {len(found)} distributions")


def main(dist: str) -> None:
    wheels = {name: next(Path(dist).glob(f"imgzoo_{name}-*.whl")) for name in ALL}
    for name in ("imgzoo", *(f"imgzoo_{name}" for name in ALL)):
        if not list(Path(dist).glob(f"{name}-[0-9]*.tar.gz")):
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
    usual_set({**wheels, "": next(Path(dist).glob("imgzoo-[0-9]*.whl"))})
    other_versions(wheels)


if __name__ == "__main__":
    main(*sys.argv[1:])
