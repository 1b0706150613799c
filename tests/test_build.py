"""How packages with C code are built."""

import re
import tomllib
from pathlib import Path

from imgzoo_data import c_sources
from imgzoo_data.transforms import twopass

PACKAGES = Path(__file__).parents[1] / "packages"


def test_the_build_hooks_are_one_text():
    assert (PACKAGES / "data/hatch_build.py").read_text() == (PACKAGES / "optim/hatch_build.py").read_text()


def test_the_resize_is_compiled_into_the_wheel():
    assert [*c_sources.sources()] == [twopass.SOURCE]
    assert Path(c_sources.__file__).with_name("compiled") == twopass.SHIPPED
    assert f"#define BITS {twopass.BITS}\n" in twopass.SOURCE


def test_every_package_asks_for_the_oldest_torch_that_is_tested():
    floor = dict(re.findall(r'"(torch|torchvision)==([\d.]+)\.0"', (PACKAGES.parent / "noxfile.py").read_text()))
    assert floor.keys() == {"torch", "torchvision"}
    for file in PACKAGES.glob("*/pyproject.toml"):
        asked = tomllib.loads(file.read_text())["project"]["dependencies"]
        for line in asked:
            name, _, least = line.partition(">=")
            assert name not in floor or least == floor[name], (file, line)


def test_every_package_is_seen_by_the_type_checker():
    settings = tomllib.loads((PACKAGES.parent / "pyproject.toml").read_text())["tool"]["pyright"]
    assert {f"packages/{folder.name}/src" for folder in PACKAGES.iterdir() if folder.is_dir()} <= {*settings["include"]}
    for place in (*settings["include"], *settings["strict"]):
        assert (PACKAGES.parent / place).exists(), place  # the checker passes over what is not there


def test_files_are_put_in_place_by_one_function():
    """Elsewhere a name could be guessed and what stands there followed; the kernels have a folder of their own."""
    users = {path.name for path in PACKAGES.glob("*/src/**/*.py") if "os.replace(" in path.read_text()}
    assert users == {"disk.py", "native.py"}
