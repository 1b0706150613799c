"""Checkpoints as users have them: wrappers, prefixes, scalars beside the weights; into wrapped models too."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import plugin
from torch import nn

import imgzoo
from imgzoo.errors import WeightsError
from imgzoo.loading import load_checkpoint

IMAGE = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    monkeypatch.setenv("IMGZOO_CACHE", str(tmp_path / "cache"))
    imgzoo.reload()
    imgzoo.register(plugin(), "tinyplug")
    yield
    imgzoo.reload()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return imgzoo.create_model("tiny", num_classes=7).eval()


def averaged(state):
    return {"n_averaged": torch.tensor(5), **{f"module.{key}": value for key, value in state.items()}}


def zeros(state):
    return {key: torch.zeros_like(value) for key, value in state.items()}


FORMS = {
    "tutorial": lambda s: {"model_state_dict": s, "epoch": 1, "optimizer_state_dict": {"state": {}}},
    "torchvision reference": lambda s: {"model": zeros(s), "model_ema": averaged(s), "epoch": 3},
    "numpy scalars": lambda s: {"state_dict": s, "acc": np.float64(81.5), "best": np.float32(2.0), "n": np.int64(3)},
    "a name of its own": lambda s: {"my_weights": s, "epoch": 7, "args": {"lr": 0.1}},
    "the field's train.py": lambda s: {
        "epoch": 3,
        "arch": "tiny",
        "version": 2,
        "metric": 71.5,
        "state_dict": {f"module.{key}": value for key, value in zeros(s).items()},
        "state_dict_ema": s,
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "args": Namespace(model="tiny", lr=0.1, opt_kwargs={}, device="cuda:0", mean=None),
        "amp_scaler": {"scale": 65536.0, "_growth_tracker": 7},
    },
    "an average": averaged,
    "student and teacher": lambda s: {
        **{f"student.backbone.{key}": value for key, value in zeros(s).items()},
        **{f"teacher.backbone.{key}": value for key, value in s.items()},
    },
    "momentum contrast": lambda s: {
        "state_dict": {
            **{f"module.encoder_q.{key}": value for key, value in s.items()},
            **{f"module.encoder_k.{key}": value for key, value in zeros(s).items()},
            "module.queue": torch.zeros(4, 4),
        }
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_training_checkpoints(model, tmp_path, form):
    torch.save(FORMS[form](model.state_dict()), tmp_path / "w.pth")
    again = imgzoo.create_model("tiny", pretrained=tmp_path / "w.pth").eval()
    assert torch.equal(again(IMAGE), model(IMAGE))
    assert not again.load_report.initialized


PREFIXES = ["model.", "backbone.", "encoder.", "net.", "student.backbone.", "timm_model.", "base_model.model.",
            "encoder_q.", "some.thing.else."]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_one_common_prefix_is_stripped_and_reported(model, tmp_path, prefix):
    state = {prefix + key: value for key, value in model.state_dict().items()}
    torch.save({**state, "projector.weight": torch.zeros(2, 2)}, tmp_path / "w.pth")
    again = imgzoo.create_model("tiny", pretrained=tmp_path / "w.pth").eval()
    assert torch.equal(again(IMAGE), model(IMAGE))
    assert f"the prefix '{prefix}' stripped, 1 tensor outside it left out" in str(again.load_report)
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "w.safetensors")
    other = imgzoo.create_model("tiny")
    load_checkpoint(other, tmp_path / "w.safetensors", strict=False)
    assert torch.equal(other.stem.weight, model.stem.weight)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_wrappers_of_torch_are_stripped_in_every_format(model, tmp_path, wrapper, suffix):
    state = {wrapper + key: value.clone() for key, value in model.state_dict().items()}
    path = tmp_path / f"w.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    assert torch.equal(imgzoo.create_model("tiny", pretrained=path).eval()(IMAGE), model(IMAGE))


def test_a_prefix_that_leaves_something_out_is_not_stripped(model, tmp_path):
    state = {f"model.{key}": value for key, value in model.state_dict().items() if "norm" not in key}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="lacks"):
        imgzoo.create_model("tiny", pretrained=tmp_path / "w.pth")


def test_two_networks_that_fit_are_named(model, tmp_path):
    state = {f"{side}.{key}": value for side in ("left", "right") for key, value in model.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"several networks that fit, under left\., right\."):
        imgzoo.create_model("tiny", pretrained=tmp_path / "w.pth")


def test_into_wrapped_models_and_feature_extractors(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "w.pth")
    wrapped = nn.DataParallel(imgzoo.create_model("tiny", num_classes=7))
    load_checkpoint(wrapped, tmp_path / "w.pth")
    assert torch.equal(wrapped.module.fc.weight.cpu(), model.fc.weight)
    levels = imgzoo.create_model("tiny", features_only=True, out_indices=[0]).eval()
    report = load_checkpoint(levels, tmp_path / "w.pth")
    assert report.unused and not report.initialized
    wanted = model.forward_intermediates(IMAGE, [0], intermediates_only=True)[0]
    assert torch.equal(levels(IMAGE)[0], wanted)
    load_checkpoint(nn.DataParallel(levels), tmp_path / "w.pth")


def test_a_file_of_which_nothing_fits_is_an_error_whatever_strict_says(model, tmp_path):
    torch.save({"a.weight": torch.zeros(3), "b.bias": torch.zeros(2)}, tmp_path / "w.pth")
    for strict in (True, False):
        with pytest.raises(WeightsError, match="does not fit"):
            load_checkpoint(model, tmp_path / "w.pth", strict=strict)


def test_the_file_says_how_many_classes(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "w.pth")
    assert imgzoo.create_model("tiny", pretrained=tmp_path / "w.pth").num_classes == 7
    assert imgzoo.create_model("tiny", pretrained=tmp_path / "w.pth", num_classes=3).num_classes == 3


def test_the_task_is_saved_and_an_unknown_one_refused(model, tmp_path):
    model.task = "multilabel"
    folder = imgzoo.save_model(model, tmp_path / "m")
    assert imgzoo.create_model(folder, pretrained=True).task == "multilabel"
    text = (folder / "config.json").read_text().replace("multilabel", "poetry")
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match="names the task 'poetry'; known are classification"):
        imgzoo.create_model(folder, pretrained=True)
