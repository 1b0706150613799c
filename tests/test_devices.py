"""What lets a device run ahead of the host, shown without one: no forward pass makes a tensor on the host."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import imgzoo
from imgzoo_data import DataConfig, Mixer, create_dataset, create_loader, create_transform
from imgzoo_optim import create_optimizer
from imgzoo_optim.table import optimizers
from imgzoo_train import train
from imgzoo_train.config.settings import Config, nested

from structures import REDUCED, STRUCTURES


class HostTensors(TorchDispatchMode):
    """Names the operations that give a tensor on the CPU."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for each in output if isinstance(output, (list, tuple)) else (output,):
            if isinstance(each, torch.Tensor) and each.device.type == "cpu":
                self.found.add(str(function))
        return output


@pytest.mark.parametrize("family", STRUCTURES)
def test_a_forward_pass_stays_on_its_device(family, monkeypatch):
    """What is made on the host has to be copied, and the host waits; biases lie as fused kernels on a GPU want them."""
    turned_down = set()
    attend = torch.nn.functional.scaled_dot_product_attention

    def seen(query, key, value, attn_mask=None, **given):
        if attn_mask is not None and attn_mask.shape[-1] > 1 and attn_mask.stride(-1) != 1:
            turned_down.add(name)
        return attend(query, key, value, attn_mask=attn_mask, **given)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", seen)
    made = {}
    for name in STRUCTURES[family]:
        model = imgzoo.create_model(name, device="meta", **REDUCED.get(name, {})).eval()
        x = torch.empty(2, *model.pretrained_cfg["input_size"], device="meta")
        with HostTensors() as host:
            model(x)
        if host.found:
            made[name] = host.found
    assert not made
    assert not turned_down


NAMED = "arange as_tensor empty eye full linspace ones rand randint randn randperm tensor zeros"
FACTORIES = {getattr(torch, name) for name in NAMED.split()}


class Undecided(TorchFunctionMode):
    """Notes where imgzoo makes a tensor without saying on which device: a default device would get it."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in FACTORIES and (kwargs or {}).get("device") is None:
            frame = sys._getframe(1)
            while frame.f_code.co_name == "__torch_function__":  # another mode hands it on
                frame = frame.f_back
            place = Path(frame.f_code.co_filename)
            if "imgzoo" in place.parent.as_posix().partition("/src/")[2]:
                self.found.add(f"{place.name}:{frame.f_lineno}")
        return function(*args, **(kwargs or {}))


def test_batches_are_made_where_they_are_asked_for():
    views = {"erase": 0.5, "erase_mode": "pixel", "auto_augment": "rand-m9-mstd0.5", "grayscale_prob": 0.5}
    source = create_dataset("digits:", "train")
    with Undecided() as mode:
        for training, more in ((True, views), (False, {}), (True, {"sequence": (8, 16), "erase": 0.5})):
            transform = create_transform(DataConfig(input_size=(3, 32, 32)), training=training, **more)
            mixer = Mixer(10, 0.8, 1.0) if training else None
            loader = create_loader(source, transform, 16, training=training, mixer=mixer, num_samples=32)
            next(iter(loader))
            if "sequence" not in more:
                transform(np.zeros((40, 50, 3), np.uint8))
                transform(np.zeros((20, 20), np.uint8))
    assert mode.found == set()


@pytest.mark.filterwarnings("ignore:.*create_graph=True")
def test_state_of_an_optimizer_is_made_where_it_belongs():
    apart = {"closure", "requires-bitsandbytes", "requires-apex"}
    for name in (spec.name for spec in optimizers() if not apart & {*spec.traits}):
        params = [torch.nn.Parameter(torch.randn(shape)) for shape in ((16, 8), (8, 4, 3, 3), (8,))]
        with Undecided() as mode:
            optimizer = create_optimizer(name, params, lr=0.01, weight_decay=0.01)
            if getattr(optimizer, "second_order", False):
                torch.stack([(p**3).sum() for p in params]).sum().backward(create_graph=True)
            for param in params:
                param.grad = param.grad if param.grad is not None else torch.ones_like(param)
            optimizer.step()
        assert mode.found == set(), name


def test_a_run_and_its_model_are_made_where_they_are_asked_for(tmp_path):
    given = {"model.name": "test_resnet", "data.source": "digits:", "data.batch_size": 240, "data.input_size": [16],
             "run.epochs": 1, "run.device": "cpu", "run.ema": [0.9], "run.precision": "bf16", "optim.clip": 1.0,
             "data.mixup": 0.5, "run.output": str(tmp_path / "run")}  # fmt: skip
    with Undecided() as mode:
        train(Config().merged(nested(given), "test"), quiet=True)
        imgzoo.create_model(f"local-dir:{tmp_path / 'run' / 'best'}")
    assert mode.found == set()
