"""The test-time pool: larger images than those of training."""

import pytest
import torch
from click.testing import CliRunner

from imgzoo import create_model
from imgzoo.errors import UsageError
from imgzoo_train.cli.validate import command
from imgzoo_train.models.views import TestPool


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_every_window_of_the_last_map_answers(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=5).eval()
    pooled = TestPool(model)
    side = model.pretrained_cfg["input_size"][1]
    own = torch.randn(2, 3, side, side)
    torch.testing.assert_close(pooled(own), model(own))
    large = torch.randn(2, 3, side + 64, side + 32)
    level = model.forward_features(large)
    high, wide = (level.shape[2] - pooled.window[0] + 1, level.shape[3] - pooled.window[1] + 1)
    windows = [
        model.forward_head(level[:, :, y : y + pooled.window[0], x : x + pooled.window[1]])
        for y in range(high)
        for x in range(wide)
    ]
    assert len(windows) == 6
    expected = 0.5 * (torch.stack(windows).mean(0) + torch.stack(windows).amax(0))
    torch.testing.assert_close(pooled(large), expected)


def test_networks_without_such_a_map_are_refused():
    with pytest.raises(UsageError, match="test_vit is made for one"):
        TestPool(create_model("test_vit"))
    with pytest.raises(UsageError, match="has none"):
        TestPool(Tokens())


class Tokens(torch.nn.Module):
    name, num_classes, channels_last = "tokens", 2, False

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        self.pretrained_cfg = {"input_size": (3, 8, 8)}

    def forward_features(self, x):
        return x.flatten(2)


@pytest.mark.filterwarnings("ignore:test_resnet was built without weights")
def test_a_size_that_is_no_larger_is_refused():
    words = ["test_resnet", "--pretrained", "false", "--data", "digits:", "--test-pool"]
    result = CliRunner().invoke(command, [*words, "--img-size", "64"])
    assert isinstance(result.exception, UsageError) and "--test-pool does nothing at 64 pixels" in str(result.exception)
