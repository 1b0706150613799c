"""Networks of cells: every level is what the module gives that it is named by, so that hooks find it."""

import pytest
import torch

import imgzoo


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nasnetalarge", "pnasnet5large"])
@torch.no_grad()
def test_every_level_is_what_its_module_gives(name):
    model = imgzoo.create_model(name, num_classes=0).eval()
    seen = {}
    for level in model.feature_info.levels:
        part = model.get_submodule(level.module)
        part.register_forward_hook(lambda part, given, output, path=level.module: seen.update({path: output.clone()}))
    levels = model.forward_intermediates(torch.randn(1, 3, 96, 96), intermediates_only=True)
    for level, found in zip(model.feature_info.levels, levels, strict=True):
        torch.testing.assert_close(seen[level.module], found)
