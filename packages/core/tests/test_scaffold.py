"""`imgzoo new-plugin` writes a plugin that works as it is; examples/imgzoo-acme is what it writes."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from imgzoo.catalog import check, format_catalog, read_json
from imgzoo.errors import UsageError
from imgzoo.scaffold import render, words, write_plugin

EXAMPLE = Path(__file__).parents[3] / "examples" / "imgzoo-acme"


def test_the_example_is_what_the_command_writes(tmp_path):
    if not EXAMPLE.exists():
        pytest.skip("the examples are not in the source distribution")
    written = render("acme")
    made = {"__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}  # by tools that were run in there
    files = [path for path in EXAMPLE.rglob("*") if path.is_file() and not made & set(path.parts)]
    there = {str(path.relative_to(EXAMPLE)): path.read_text() for path in files}
    assert there == written


def test_names_are_filled_in_everywhere(tmp_path):
    root = write_plugin("imgzoo-my-zoo", tmp_path)
    assert root == tmp_path / "imgzoo-my-zoo"
    files = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert not [name for name, text in files.items() if "{{" in name + text]
    project = tomllib.loads(files["pyproject.toml"])
    assert project["project"]["entry-points"]["imgzoo.plugins"] == {"my-zoo": "imgzoo_my_zoo._plugin"}
    assert "class MyZooNet(ImageModel)" in files["src/imgzoo_my_zoo/my_zoo_net.py"]
    assert 'parametrize_with_checks("my-zoo")' in files["tests/test_my_zoo.py"]
    catalog = read_json(str(root / "src/imgzoo_my_zoo/catalog/my_zoo_net.json"))
    assert check(catalog) == []
    assert files["src/imgzoo_my_zoo/catalog/my_zoo_net.json"] == format_catalog(catalog)


def test_requirements_have_both_bounds():
    project = tomllib.loads(render("acme")["pyproject.toml"])["project"]
    siblings = [line for line in project["dependencies"] if line.startswith("imgzoo-")]
    assert siblings == ["imgzoo-core>=0.1,<1", "imgzoo-layers>=0.1,<1"]


def test_nothing_is_overwritten(tmp_path):
    write_plugin("acme", tmp_path)
    with pytest.raises(UsageError, match="is there already"):
        write_plugin("acme", tmp_path)


@pytest.mark.parametrize("name", ["", "Acme", "a_b", "-a", "a--b", "../up", "a b", "1st", "core", "imgzoo-optim"])
def test_an_unfit_name_is_refused(name):
    with pytest.raises(UsageError):
        words(name)


@pytest.fixture(scope="module")
def installed(module_site):
    """A plugin as written, and the metadata that an editable install would leave."""
    root = write_plugin("fresh-zoo", module_site.path.parent)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    metadata = f"Name: {project['name']}\nVersion: {project['version']}\n"
    metadata += "".join(f"Requires-Dist: {line}\n" for line in project["dependencies"])
    points = "[imgzoo.plugins]\nfresh-zoo = imgzoo_fresh_zoo._plugin\n"
    module_site.add(project["name"], "fresh-zoo", None, entry_points=points, metadata=metadata)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(module_site.path), str(root / "src")])}
    return root, env


def test_the_written_plugin_is_found_and_its_network_works(installed):
    _, env = installed
    code = """
import imgzoo, torch
assert imgzoo.list_models("fresh_zoo*") == ["fresh_zoo_net_small", "fresh_zoo_net_tiny"]
model = imgzoo.create_model("fresh_zoo_net_tiny", num_classes=5)
assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
levels = imgzoo.create_model("fresh_zoo_net_tiny", features_only=True)(torch.zeros(1, 3, 64, 64))
assert [tuple(level.shape) for level in levels] == [(1, 16, 16, 16), (1, 32, 8, 8), (1, 64, 4, 4)]
"""
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


@pytest.mark.slow
def test_the_tests_of_the_written_plugin_pass(installed):
    root, env = installed
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(root)]
    done = subprocess.run(command, env={**env, "OMP_NUM_THREADS": "1"}, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "passed" in done.stdout and "failed" not in done.stdout
