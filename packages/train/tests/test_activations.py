"""Statistics of what passes through a network."""

import pytest
import torch

from imgzoo import create_model
from imgzoo.errors import UsageError
from imgzoo_train import ActivationStats


def test_numbers_of_maps_and_tokens():
    model = create_model("test_resnet").eval()
    x = torch.randn(4, 3, 64, 64)
    with ActivationStats(model, "layer?.0", "conv1") as stats, torch.no_grad():
        model(x)
        model(2 * x)
    levels = [model.conv1(y).detach() for y in (x, 2 * x)]
    found = stats.mean()
    assert set(found) == {"conv1", *(f"layer{i}.0" for i in range(1, 5))}
    squares = [level.mean((0, 2, 3)).square().mean() for level in levels]
    spread = [level.var((0, 2, 3)).mean() for level in levels]
    assert found["conv1"]["squared_mean"] == pytest.approx(float(sum(squares)) / 2, rel=1e-4)
    assert found["conv1"]["variance"] == pytest.approx(float(sum(spread)) / 2, rel=1e-4)

    tokens = create_model("test_vit").eval()
    with ActivationStats(tokens, "norm", measures={"top": lambda y: y.abs().amax()}) as stats, torch.no_grad():
        tokens(torch.randn(1, *tokens.pretrained_cfg["input_size"]))
    assert list(stats.mean()["norm"]) == ["top"]


def test_nothing_is_watched_outside_and_no_module_is_guessed():
    model = create_model("test_resnet").eval()
    with ActivationStats(model, "fc") as stats:
        model(torch.randn(1, 3, 64, 64))
    model(torch.randn(1, 3, 64, 64))
    assert len(stats.found["fc"]["variance"]) == 1 and not model.fc._forward_hooks
    with pytest.raises(UsageError, match="'layre\\*' matches no module of ResNet"):
        ActivationStats(model, "layre*")
