"""Importing: cheap, by any path, in timm's place, and never in silence in front of an installed timm."""

import importlib
import subprocess
import sys

import pytest

import imgzoo_timm
from imgzoo.errors import UsageError


def run(code, *words, **options):
    return subprocess.run([sys.executable, *(words or ("-c", code))], capture_output=True, text=True, **options)


def test_importing_brings_no_torch():
    code = (
        "import sys, imgzoo_timm as timm; assert timm.list_models('resnet*') and timm.is_model('vit_tiny_patch16_224')"
    )
    assert run(f"{code}; assert 'torch' not in sys.modules").returncode == 0


def test_installing_stands_in_with_all_paths():
    code = """
import imgzoo_timm; imgzoo_timm.install(force=True)
import timm, timm.models.vision_transformer as vit, importlib.metadata, importlib.util
from timm.models.layers import DropPath
from timm.models.layers.drop import DropPath as again
from timm.models.registry import register_model
from timm.models._features import FeatureHooks, FeatureHookNet, FeatureInfo
from timm.models._factory import resolve_model_input_args
from timm.layers import create_conv2d
import timm.layers.create_conv2d
assert timm is imgzoo_timm and callable(timm.layers.create_conv2d) and DropPath is again is timm.layers.DropPath
assert importlib.util.find_spec("timm") and importlib.metadata.version("timm") == timm.__version__
assert tuple(map(int, timm.__version__.split("."))) >= (1, 0, 31)
assert vit.VisionTransformer is timm.models.VisionTransformer
imgzoo_timm.uninstall()
try:
    import timm.scheduler
except ModuleNotFoundError as error:
    assert error.name == "timm"
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def installed(tmp_path):
    """A folder with a package called timm."""
    (tmp_path / "timm.py").write_text("mine = True\n")
    (tmp_path / "script.py").write_text("import sys, timm\nprint(timm.__name__, sys.argv[1:])\n")
    return tmp_path


def test_an_installed_timm_is_not_hidden_unless_told(installed):
    env = {"PYTHONPATH": ":".join([str(installed), *sys.path])}
    refused = run("", "-m", "imgzoo_timm", str(installed / "script.py"), env=env)
    assert refused.returncode == 2 and "--force" in refused.stderr and "Traceback" not in refused.stderr
    told = run("", "-m", "imgzoo_timm", "--force", str(installed / "script.py"), "--lr", "1", env=env)
    assert told.stdout == "imgzoo_timm ['--lr', '1']\n", told.stderr
    late = run("import timm, imgzoo_timm; imgzoo_timm.install(force=True)", env=env)
    assert late.returncode == 1 and "imported already" in late.stderr


def test_a_script_that_is_not_there_is_told():
    done = run("", "-m", "imgzoo_timm", "nowhere.py")
    assert done.returncode == 2 and "nowhere.py" in done.stderr
    assert run("", "-m", "imgzoo_timm").returncode == 2


def test_installing_twice_is_once(monkeypatch):
    before = list(sys.meta_path)
    monkeypatch.setattr(sys, "meta_path", before)
    imgzoo_timm.install(force=True)
    imgzoo_timm.install()
    imgzoo_timm.uninstall()
    assert sys.meta_path == before
    monkeypatch.setitem(sys.modules, "timm", sys)
    with pytest.raises(UsageError, match="imported already"):
        imgzoo_timm.install()


@pytest.mark.parametrize(
    "path", ["layers", "layers.drop", "models", "models.resnet", "data", "optim", "loss", "utils", "scheduler"]
)
def test_what_is_missing_is_one_sentence(path):
    module = importlib.import_module(f"imgzoo_timm.{path}")
    assert not hasattr(module, "Nobody")
    for statement in (f"from imgzoo_timm.{path} import Nobody", f"import imgzoo_timm.{path}.nobody"):
        with pytest.raises(ImportError, match=rf"imgzoo_timm.{path} has no .*: .*imgzoo") as raised:
            exec(statement)
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("statement", "way"),
    [
        ("from imgzoo_timm.data import set_img_extensions", "a csv source"),
        ("from imgzoo_timm.models import EfficientNetFeatures", "features_only"),
        ("from imgzoo_timm.models import adapt_model_from_string", "pruned"),
        ("from imgzoo_timm.models.cait import TalkingHeadAttn", "get_spec"),
        ("import imgzoo_timm.layers.halo_attn", "imgzoo_layers.halo"),
        ("import imgzoo_timm.models.layers.activations_me", "keep no more than"),
        ("import imgzoo_timm.models._prune", "pruned"),
        ("import imgzoo_timm.utils.onnx", "imgzoo export"),
        ("from imgzoo_timm.models.vitamin import VitCfg", "as options"),
        ("import imgzoo_timm.data.tf_preprocessing", "as Pillow does"),
        ("import imgzoo_timm.data.readers.reader_wds", "imgzoo.create_dataset"),
    ],
)
def test_what_is_not_here_on_purpose_names_the_way(statement, way):
    with pytest.raises(ImportError, match=f"imgzoo_timm.(data|models|layers|utils).* has no .*{way}"):
        exec(statement)


def test_every_name_can_be_had():
    for name in imgzoo_timm.PACKAGES:
        importlib.import_module(f"imgzoo_timm.{name}")
    from imgzoo_timm._door import rooms

    for path in [path for path, room in rooms.items() if room.homes]:
        module = importlib.import_module(path)
        for each in rooms[path].homes:
            assert getattr(module, each) is not None, f"{path}.{each}"
