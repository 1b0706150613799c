"""Preprocessing that a user states, when a model is created and when it is saved."""

import json

import pytest
from tiny_models import plugin

import imgzoo
from imgzoo.errors import OptionError

SAID = {"mean": (0.1, 0.2, 0.3), "crop_pct": 0.5, "interpolation": "bilinear", "range": (0, 4095)}


@pytest.fixture(autouse=True)
def tiny():
    imgzoo.reload()
    imgzoo.register(plugin(), "tinyplug")
    yield
    imgzoo.reload()


def holds(model):
    return {key: model.pretrained_cfg.get(key) for key in SAID} == SAID


def test_what_is_stated_goes_first_and_stays(tmp_path):
    plain = imgzoo.create_model("tiny")
    model = imgzoo.create_model("tiny", pretrained_cfg=SAID)
    assert holds(model) and plain.pretrained_cfg["std"] == model.pretrained_cfg["std"]
    assert not {key for key in SAID if plain.pretrained_cfg.get(key) == SAID[key]}  # another's is untouched
    assert holds(imgzoo.create_model(f"local-dir:{imgzoo.save_model(model, tmp_path / 'a')}"))
    saved = imgzoo.save_model(plain, tmp_path / "b", pretrained_cfg=SAID)
    assert holds(imgzoo.create_model(f"local-dir:{saved}")) and not holds(plain)
    assert holds(imgzoo.create_model(f"local-dir:{saved}", pretrained_cfg={"crop_pct": 0.9})) is False
    assert json.loads((saved / "config.json").read_text())["pretrained_cfg"]["crop_pct"] == 0.5


@pytest.mark.parametrize(("given", "says"), [
    ({"crop": 1.0}, "cannot say 'crop'; it can say test_input_size"),
    ({"num_classes": 3}, "cannot say 'num_classes'"),
    ({"crop_pct": -1}, "'crop_pct' must be a number above 0, not -1"),
    ({"mean": "imagenet"}, "'mean' must be numbers"),
    ({"range": (1, 2, 3)}, "'range' must be the values of black and white"),
])  # fmt: skip
def test_what_cannot_be_is_refused_and_nothing_is_written(given, says, tmp_path):
    with pytest.raises(OptionError, match=says):
        imgzoo.create_model("tiny", pretrained_cfg=given)
    with pytest.raises(OptionError, match=says):
        imgzoo.save_model(imgzoo.create_model("tiny"), tmp_path / "m", pretrained_cfg=given)
    assert not (tmp_path / "m").exists()
