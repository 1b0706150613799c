"""Blocks are run again one by one, where a network keeps them in parts of its own too."""

import pytest
import torch
from torch import nn

import imgzoo
from imgzoo.model import Checkpointed

FIRST = {
    "nest_tiny": "levels.0.transformer_encoder.0", "vitamin_small_224": "patch_embed.backbone.stages.0.0",
    "vit_tiny_r_s16_p8_224": "blocks.0", "vit_small_r26_s32_224": "patch_embed.backbone.stages.0.blocks.0",
    "visformer_tiny": "stage1.0",
}  # fmt: skip


@pytest.mark.parametrize("name", FIRST)
def test_the_first_blocks_are_run_again(name):
    model = imgzoo.create_model(name, device="meta")
    model.set_grad_checkpointing()
    again = [path for path, part in model.named_modules() if isinstance(part, Checkpointed)]
    assert FIRST[name] in again and len(again) > 6
    assert all(type(parameter) is nn.Parameter for parameter in model.parameters())
    model.set_grad_checkpointing(False)
    assert not any(isinstance(part, Checkpointed) for part in model.modules())


def test_a_hybrid_with_a_checkpointed_backbone_has_the_same_gradients():
    gradients, x = [], torch.randn(2, 3, 64, 64)
    for enable in (False, True):
        torch.manual_seed(0)
        model = imgzoo.create_model("vit_small_r26_s32_224", img_size=64, depth=1, num_classes=3)
        model.set_grad_checkpointing(enable)
        model(x).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)
