"""What the package exports exists, says what it does, and is all that stands on its page."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import imgzoo_layers

MODULES = [module.name for module in pkgutil.iter_modules(imgzoo_layers.__path__)]


def test_all_is_what_is_imported():
    brought = {name for name, value in vars(imgzoo_layers).items() if not name.startswith("_")} - {*MODULES}
    assert sorted(brought) == sorted(imgzoo_layers.__all__)
    assert len({*imgzoo_layers.__all__}) == len(imgzoo_layers.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_exported_and_every_export_has_a_line(name):
    module = importlib.import_module(f"imgzoo_layers.{name}")
    assert module.__doc__
    own = [
        key
        for key in imgzoo_layers.__all__
        if getattr(getattr(imgzoo_layers, key), "__module__", "") == module.__name__
    ]
    assert own, f"{name} exports nothing"
    for key in own:
        assert vars(imgzoo_layers)[key].__doc__, key
        if inspect.isfunction(getattr(imgzoo_layers, key)):
            hints = inspect.signature(getattr(imgzoo_layers, key))
            assert hints.return_annotation is not inspect.Signature.empty, f"{key} says no type of what it returns"
            assert all(each.annotation is not inspect.Parameter.empty for each in hints.parameters.values()), key


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_tests(name):
    here = Path(__file__)
    text = "".join(path.read_text() for path in here.parent.glob("test_*.py") if path != here)
    assert f"imgzoo_layers.{name} import" in text
