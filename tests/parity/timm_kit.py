"""The stand-in and the peer side by side: what their tests share."""

import importlib
import inspect
from functools import partial

import torch
from torch import nn

import imgzoo_timm
from imgzoo_timm._door import rooms

EARLIER = {"timm.optim.novograd", "timm.optim.optim_factory", "timm.models.factory", "timm.models.features",
           "timm.models.fx_features", "timm.models.helpers", "timm.models.hub", "timm.models.registry"}  # fmt: skip
"""Paths and names of earlier versions of the peer, which research code still imports."""
EARLIER_NAMES = {"Nadam", "NovoGrad", "_pil_interp"}
for name in imgzoo_timm.PACKAGES:
    importlib.import_module(f"imgzoo_timm.{name}")
PATHS = sorted(path for path, room in rooms.items() if room.homes and not path.startswith("imgzoo_timm.models.layers"))


def peer_module(path):
    return importlib.import_module(path.replace("imgzoo_timm", "timm", 1))


def ours(path, name):
    return getattr(importlib.import_module(f"imgzoo_timm.{path}"), name)


def theirs(path, name):
    module = importlib.import_module(f"timm.{path}")
    if not hasattr(module, name):  # only the module that it stands in shows it
        own = f"imgzoo_timm.{path}."
        module = next(peer_module(each) for each in PATHS if each.startswith(own) and name in rooms[each].homes)
    return getattr(module, name)


def both(path, name):
    return ours(path, name), theirs(path, name)


def parameters(thing):
    """Names, kinds and defaults of a signature; classes and functions by their names."""
    try:
        found = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return None

    def shown(value):
        if "required" in repr(value):
            value = inspect.Parameter.empty
        if callable(value) and value is not inspect.Parameter.empty:
            return getattr(value, "__name__", type(value).__name__)
        return repr(tuple(value) if isinstance(value, list) else value).replace("torch.bfloat16", "'bfloat16'")

    return [(each.name, each.kind, shown(each.default)) for each in found]


def same_tensors(mine, other, tolerance=1e-5):
    mine, other = ([each] if isinstance(each, torch.Tensor) else list(each) for each in (mine, other))
    for a, b in zip(mine, other, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


def on_shared_weights(mine, other, *inputs, train=False):
    own, peers = mine.state_dict(), other.state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in peers.items()}
    drawn = torch.Generator().manual_seed(0)
    for value in peers.values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=drawn) * 0.2 + 0.05)
    mine.load_state_dict(peers)
    mine.train(train), other.train(train)
    with torch.no_grad():
        same_tensors(mine(*inputs), other(*inputs), 5e-5)


torch.manual_seed(0)
NORM = partial(nn.LayerNorm, eps=1e-6)


def small(name="test_resnet", seed=0, **options):
    """The same network of both, by the peer's class: tasks take any."""
    torch.manual_seed(seed)
    return theirs("models", "create_model")(name, num_classes=7, **options)
