"""How packages with C code are built."""

import importlib
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from imgzoo_data import c_sources
from imgzoo_data.transforms import compiled

PACKAGES = Path(__file__).parents[1] / "packages"


def test_the_build_hooks_are_one_text():
    assert (PACKAGES / "data/hatch_build.py").read_text() == (PACKAGES / "optim/hatch_build.py").read_text()


def test_the_resize_is_compiled_into_the_wheel():
    assert [*c_sources.sources()] == [compiled.SOURCE]
    assert Path(c_sources.__file__).with_name("compiled") == compiled.SHIPPED
    assert f"#define BITS {compiled.BITS}\n" in compiled.SOURCE


def test_every_package_asks_for_the_oldest_torch_that_is_tested():
    floor = dict(re.findall(r'"(torch|torchvision)==([\d.]+)\.0"', (PACKAGES.parent / "noxfile.py").read_text()))
    assert floor.keys() == {"torch", "torchvision"}
    for file in PACKAGES.glob("*/pyproject.toml"):
        asked = tomllib.loads(file.read_text())["project"]["dependencies"]
        for line in asked:
            name, _, least = line.partition(">=")
            assert name not in floor or least == floor[name], (file, line)


PROJECTS = {file.parent.name: tomllib.loads(file.read_text())["project"] for file in PACKAGES.glob("*/pyproject.toml")}


@pytest.mark.parametrize("name", PROJECTS)
def test_a_version_is_below_one_and_siblings_are_asked_for_within_both_bounds(name):
    """Until the packages are published; what is asked for admits what stands in this repository."""
    versions = {project["name"]: Version(project["version"]) for project in PROJECTS.values()}
    assert versions[PROJECTS[name]["name"]] < Version("1")
    for need in map(Requirement, PROJECTS[name]["dependencies"]):
        if need.name.startswith("imgzoo"):
            assert {each.operator for each in need.specifier} == {">=", "<"}, need
            assert versions[need.name] in need.specifier and Version("1") not in need.specifier, need


@pytest.mark.parametrize("name", PROJECTS)
def test_a_package_says_its_version_whose_it_is_and_where_it_lives(name):
    project = PROJECTS[name]
    assert project["authors"] and project["license"] == "Apache-2.0"
    assert project["urls"].keys() == {"Source", "Documentation", "Changelog", "Issues"}
    assert project["urls"]["Changelog"].endswith(f"/packages/{name}/CHANGELOG.md")
    assert project["urls"]["Source"] == PROJECTS["core"]["urls"]["Source"]
    assert re.search(rf"^## {re.escape(project['version'])}$", (PACKAGES / name / "CHANGELOG.md").read_text(), re.M)
    if name == "imgzoo":
        return  # it has no module: `imgzoo` is the core's
    module = importlib.import_module("imgzoo" if name == "core" else project["name"].replace("-", "_"))
    said = "1.0.31" if name == "timm" else importlib.metadata.version(project["name"])  # there, whose names it has
    assert module.__version__ == said
    with pytest.raises(AttributeError, match=r"has no (attribute ')?nothing"):
        _ = module.nothing


def test_every_package_is_seen_by_the_type_checker():
    settings = tomllib.loads((PACKAGES.parent / "pyproject.toml").read_text())["tool"]["pyright"]
    assert {f"packages/{folder.name}/src" for folder in PACKAGES.iterdir() if (folder / "src").is_dir()} <= {
        *settings["include"]
    }
    for place in (*settings["include"], *settings["strict"]):
        assert (PACKAGES.parent / place).exists(), place  # the checker passes over what is not there


def test_files_are_put_in_place_by_one_function():
    """Elsewhere a name could be guessed and what stands there followed; the kernels have a folder of their own."""
    users = {path.name for path in PACKAGES.glob("*/src/**/*.py") if "os.replace(" in path.read_text()}
    assert users == {"disk.py", "native.py"}
