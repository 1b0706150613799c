"""Models of a script or a notebook."""

import subprocess
import sys

import pytest
import torch
from tiny_models import TinyNet

import imgzoo
from imgzoo.errors import PluginError, UsageError
from imgzoo.plugin import ModelSpec, WeightSpec, hookimpl


@pytest.fixture(autouse=True)
def fresh():
    from imgzoo.session import session

    imgzoo.reload()
    yield
    session.specs.clear()
    imgzoo.reload()


def test_a_class_and_a_function_become_names():
    @imgzoo.register_model
    class MyNet(TinyNet):
        pass

    weights = [WeightSpec("v1", hf_hub_id="me/my-net", num_classes=5)]

    @imgzoo.register_model(name="my-other", kwargs={"num_classes": 7}, weights=weights, capabilities=["export"])
    def build(**options):
        return TinyNet(**options)

    assert {"MyNet", "my-other"} & set(imgzoo.list_models()) == {"MyNet", "my-other"}
    assert isinstance(imgzoo.create_model("MyNet", num_classes=3), MyNet)
    model = imgzoo.create_model("session/my-other.v1")
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 7) and model.name == "my-other"
    assert imgzoo.get_spec("my-other").capabilities == {"export"}


def test_the_same_name_again_replaces_the_former():
    for classes in (2, 9):
        imgzoo.register_model(name="specs")(lambda num_classes=classes: TinyNet(num_classes=num_classes))
        assert imgzoo.create_model("specs").num_classes == classes


class Mine:
    @hookimpl
    def imgzoo_models(self):
        return [ModelSpec("x", "module:attribute")]


def test_names_that_are_none_or_a_plugins_are_refused():
    with pytest.raises(UsageError, match="give name="):
        imgzoo.register_model(lambda: None)
    imgzoo.register(
        type("Mine", (), {"imgzoo_models": hookimpl(lambda self: [imgzoo.plugin.ModelSpec("x", "a:b")])})(), "mine"
    )
    with pytest.raises(UsageError, match="'x' is brought by mine: give another name="):
        imgzoo.register_model(name="x")(TinyNet)


def test_a_plugin_that_goes_by_its_name_is_no_trap():
    imgzoo.register(object(), "session")
    with pytest.raises(PluginError, match="taken"):
        imgzoo.register_model(TinyNet)


def test_it_imports_no_torch():
    code = "import sys, imgzoo; imgzoo.register_model(name='x')(lambda: 0); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
