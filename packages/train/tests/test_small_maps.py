"""No convolution over a map smaller than its kernel is computed, or differentiated, in low precision on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from imgzoo import create_model
from imgzoo.errors import UsageError
from imgzoo_train.config.settings import Config, nested
from imgzoo_train.loop.fit import fit
from imgzoo_train.loop.nonfinite import Guard, NonFiniteError
from imgzoo_train.loop.state import State
from imgzoo_train.runs.run import train
from imgzoo_train.techniques import scripting, small_maps
from imgzoo_train.techniques.precision import create_precision
from imgzoo_train.techniques.small_maps import too_small

CPU = torch.device("cpu")
LOW = (torch.bfloat16, torch.float16)


class Witness(TorchDispatchMode):
    """Below autograd and TorchScript: what reaches the kernels, and a gradient as broken as the processor's."""

    def __init__(self):
        super().__init__()
        self.small, self.low = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        aten = torch.ops.aten
        self.low += func is aten.convolution.default and args[0].dtype in LOW
        self.small += func is torch.ops.imgzoo_train.conv2d.default and too_small(args[0].shape, args[1].shape, args[5])
        if func is aten.convolution_backward.default:
            _, x, weight, _, _, _, dilation = args[:7]
            if x.dtype in LOW and too_small(x.shape, weight.shape, dilation):
                output[1].fill_(float("nan"))
        return output


class Batch(tuple):
    images = property(lambda self: self[0])
    targets = property(lambda self: self[1])


def batch(size, count=4):
    torch.manual_seed(0)
    return Batch((torch.randn(count, 3, size, size), torch.arange(count) % 4))


def trained(name, precision, how=""):
    """A model after one update."""
    torch.manual_seed(0)
    kind = create_precision(precision, CPU)
    model = small_maps.protect(kind.prepare(create_model(name, num_classes=4)))
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 16, 16)}
    called = scripting.scripted(model, how, CPU, kind) if how else model
    state = State(called, torch.optim.SGD(model.parameters(), lr=0.01), model, precision=kind)

    def loss(model, batch):
        return nn.functional.cross_entropy(model(kind.inputs(batch.images)).float(), batch.targets)

    fit(state, [batch(16)], loss, None, 1)
    return model


@pytest.mark.parametrize("precision", ["bf16", "pure-bf16"])
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_the_processors_bad_gradient_is_never_taken(name, precision):
    with Witness() as witness:
        model = trained(name, precision)
    assert witness.small and witness.low  # both happened: small maps apart, the rest in low precision
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["bf16", "pure-bf16"])
def test_a_trace_decides_by_the_size_it_runs_at(monkeypatch, precision):
    chosen, original = [], small_maps.compute_dtype

    def spy(x, weight, dilation):
        chosen.append((too_small(x.shape, weight.shape, dilation), original(x, weight, dilation)))
        return chosen[-1][1]

    monkeypatch.setattr(small_maps, "compute_dtype", spy)
    trained("test_resnet", precision, "trace")
    assert (True, torch.float32) in chosen
    assert all(dtype == torch.float32 for small, dtype in chosen if small)
    assert (False, torch.bfloat16) in chosen


def test_a_run_protects_itself(tmp_path):
    settings = {"model.name": "test_resnet", "data.source": "digits:", "data.batch_size": 120, "data.input_size": 16}
    settings |= {"run.epochs": 1, "run.precision": "bf16", "run.device": "cpu", "run.output": str(tmp_path / "run")}
    with Witness() as witness:
        train(Config().merged(nested(settings), "test"), quiet=True)
    assert witness.small and witness.low


def test_a_recomputed_block_computes_as_it_did():
    torch.manual_seed(0)
    kind = create_precision("bf16", CPU)
    model = small_maps.protect(create_model("test_resnet", num_classes=4))
    model.set_grad_checkpointing()
    state = State(model, torch.optim.SGD(model.parameters(), lr=0.01), precision=kind)
    with Witness():
        fit(state, [batch(16)], lambda m, b: nn.functional.cross_entropy(m(b.images), b.targets), None, 1)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_it_equals_float32_within_the_precision():
    torch.manual_seed(0)
    conv, x = small_maps.protect(nn.Conv2d(8, 8, 3, 2, 1)), torch.randn(4, 8, 1, 1, requires_grad=True)
    wanted = torch.autograd.grad(conv(x).square().sum(), [x, *conv.parameters()])
    with create_precision("bf16", CPU).forward(CPU):
        output = conv(x)
    assert output.dtype == torch.bfloat16
    found = torch.autograd.grad(output.float().square().sum(), [x, *conv.parameters()])
    for left, right in zip(wanted, found, strict=True):
        torch.testing.assert_close(left, right, rtol=0.03, atol=0.03)


def test_a_script_that_would_take_it_is_refused():
    model = small_maps.protect(create_model("test_resnet", num_classes=4))
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 16, 16)}
    with pytest.raises(UsageError, match="--torchscript trace"):
        scripting.scripted(model, "script", CPU, create_precision("bf16", CPU))
    scripting.scripted(model, "script", CPU)


@pytest.mark.parametrize("clip", [False, True])
def test_the_guard_names_the_parameter_whose_gradient_broke(clip):
    """Without the technique the fault is found where it is, even after clipping has spread it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    state = State(net, torch.optim.SGD(net.parameters(), lr=0.1))

    def loss(model, batch):
        with torch.autocast("cpu", torch.bfloat16):
            output = model(batch.images)
        return nn.functional.cross_entropy(output.float(), batch.targets)

    def limit(parameters):
        return nn.utils.clip_grad_norm_(parameters, 1.0)

    with Witness(), pytest.raises(NonFiniteError, match=r"gradient of 1\.weight"):
        fit(state, [batch(2)], loss, None, 1, guard=Guard(), clip=limit if clip else None)
