"""Listing costs next to nothing: no heavy import, under 0.2 s of CPU time with a catalog of full size.

On a slow processor, where already `python -c "import click"` takes above 0.05 s, it may take four times that.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from imgzoo.registry import registry

FIELD = {"families": 98, "names": 1400, "tags": 1850}  # as many as the field has
LIMIT = 0.2  # seconds of CPU time of the child
STARTS = 4  # or as often what starting Python with click takes
HEAVY = ("torch", "torchvision", "numpy", "PIL", "huggingface_hub")
LISTS = [["list"], ["list", "--plugin"], ["list", "*5*", "--exclude", "*7*"]]


def full_catalog() -> dict[str, str]:
    """Files of a package with the families, names and tags that the installed ones lack to make a full catalog."""
    specs = registry("models").specs()
    families = max(FIELD["families"] - len({spec.family for spec in specs}), 1)
    names = max(FIELD["names"] - len(specs), families)
    more = FIELD["tags"] - sum(row.published for spec in specs for row in spec.weights) - names
    files = {}
    for i in range(families):
        models = {}
        for j in range(i, names, families):
            tags = 2 if j < more else 1
            weights = {f"tag{k}_in1k": {"crop_pct": 0.9, "test_input_size": 288, "license": "MIT"} for k in range(tags)}
            models[f"family{i}_net{j}"] = {"depths": [3, 3, 9, 3], "dims": [96, 192, 384, 768], "weights": weights}
        data = {"family": f"family{i}", "target": f"full_zoo.family{i}:Net", "models": models}
        files[f"full_zoo/catalog/family{i}.json"] = json.dumps(data)
    return files


@pytest.fixture(scope="module")
def full(module_site):
    source = "@hookimpl\ndef imgzoo_models(): return Catalog.read(__package__)"
    module_site.add("full-zoo", "full", source, files=full_catalog())
    return module_site


def child(args: list[str], path: Path, *flags: str) -> tuple[int, float, str]:
    """Exit code, CPU seconds and stdout of `python -m imgzoo ARGS` with a folder first on the path."""
    return timed([*flags, "-m", "imgzoo", *args], path)


def timed(arguments: list[str], path: Path) -> tuple[int, float, str]:
    """The same of `python ARGUMENTS`."""
    output = path / "stdout.txt"
    env = {**os.environ, "PYTHONPATH": str(path), "PYTHONPYCACHEPREFIX": str(path / "compiled")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # pip compiles what it installs
    actions = [(os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)]
    pid = os.posix_spawn(sys.executable, [sys.executable, *arguments], env, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, output.read_text()


@pytest.mark.parametrize("args", LISTS, ids=" ".join)
def test_cpu_time_of_a_list(full, args):
    best = start = float("inf")
    for _ in range(15):  # five are enough on a quiet machine; a busy one makes CPU time dearer, too
        code, seconds, _ = child(args, full.path)
        assert code == 0
        best = min(best, seconds)
        start = min(start, timed(["-c", "import click"], full.path)[1])
        if best < LIMIT:
            break
    assert best < max(LIMIT, STARTS * start), f"{best:.3f} s, where Python with click takes {start:.3f} s"


def test_the_full_catalog_is_listed(full):
    _, _, output = child(["list"], full.path)
    assert len(output.splitlines()) >= FIELD["names"]
    _, _, output = child(["list", "--pretrained"], full.path)
    assert len(output.splitlines()) >= FIELD["tags"]


SPY = """
import atexit, sys
def tell():
    found = sorted({name.partition('.')[0] for name in sys.modules} & set(%r))
    print('HEAVY', *found, file=sys.stderr)
atexit.register(tell)
"""
LIGHT = [
    ["list"],
    ["list", "--min-top1", "80", "--sort", "-top1", "--json"],
    ["list", "--kind", "optimizer"],
    ["info", "resnet50"],
    ["info", "no_such_model"],
    ["--help"],
    ["list", "--help"],
    ["plugins"],
    ["doctor"],
]


@pytest.mark.parametrize("args", LIGHT, ids=" ".join)
def test_no_heavy_module_is_imported(site, args):
    site.write("sitecustomize.py", SPY % (HEAVY,))
    assert "HEAVY\n" in site.run(*args).stderr


def test_completion_imports_no_heavy_module(site):
    site.write("sitecustomize.py", SPY % (HEAVY,))
    done = site.run(_IMGZOO_COMPLETE="bash_complete", COMP_WORDS="imgzoo info res", COMP_CWORD="2")
    assert "HEAVY\n" in done.stderr


def test_import_imgzoo_imports_little(site):
    import subprocess

    code = "import sys; before = set(sys.modules); import imgzoo; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'imgzoo'" in done.stdout
    assert not [name for name in (*HEAVY, "imgzoo.registry", "pluggy", "click") if f"'{name}'" in done.stdout]


@pytest.mark.parametrize("args", LIGHT, ids=" ".join)
def test_a_poisoned_torch_on_the_path_is_not_touched(site, args):
    for name in HEAVY:
        site.write(
            f"{name}/__init__.py", f"open({str(site.path / 'touched')!r}, 'a').write({name!r})\nraise SystemExit(9)"
        )
    done = site.run(*args)
    assert done.returncode != 9
    assert not (site.path / "touched").exists(), (site.path / "touched").read_text()


@pytest.fixture
def without_torch(tmp_path):
    """A path with imgzoo, its plugins and the few libraries they need at discovery, and nothing else."""
    import click
    import importlib_metadata
    import pluggy
    import zipp

    from imgzoo.discovery.find import FIRST_PARTY

    for module in (click, pluggy, zipp, importlib_metadata):
        folder = Path(str(module.__file__)).parent
        (tmp_path / folder.name).symlink_to(folder)
    for dist in importlib_metadata.distributions():
        if dist.name in FIRST_PARTY:
            (tmp_path / dist._path.name).symlink_to(dist._path)
            package = "imgzoo" if dist.name == "imgzoo-core" else dist.name.replace("-", "_")
            spec = find_spec(package)
            (tmp_path / package).symlink_to(Path(spec.origin).parent)
    return tmp_path


def test_everything_is_listed_in_an_environment_without_torch(without_torch):
    code, _, output = child(["list"], without_torch, "-S")
    assert code == 0
    from imgzoo.discovery.find import RESERVED
    from imgzoo.registry import registry

    own = [name for name, spec in registry("models").listed().items() if spec.plugin in RESERVED]
    assert set(own) <= set(output.split()) and len(own) > 50
    code, _, output = child(["plugins", "--json"], without_torch, "-S")
    assert {row["state"] for row in json.loads(output)} == {"ok"}
    code, _, output = child(["--help"], without_torch, "-S")
    assert code == 0 and " train " in output


def test_the_budget_is_real(full):
    """The child of these tests sees what it should: importing a heavy module would be noticed."""
    start = timed(["-c", "import click"], full.path)[1]
    limit = max(LIMIT, STARTS * start)
    full.write("sitecustomize.py", f"import time, decimal\nwhile time.process_time() < {limit}: pass")
    try:
        _, seconds, _ = child(["list"], full.path)
        assert seconds > limit
    finally:
        (full.path / "sitecustomize.py").unlink()
