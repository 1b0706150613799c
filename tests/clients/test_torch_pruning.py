"""torch-pruning: channels of networks are cut by their dependencies, attention by its heads."""

import pytest
import timm
import torch
import torch_pruning as tp


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "mobilenetv3_small_100"])
def test_convolutional_networks(name):
    model = timm.create_model(name, num_classes=10).eval()
    example = torch.randn(1, 3, 64, 64)
    before = sum(each.numel() for each in model.parameters())
    pruner = tp.pruner.MagnitudePruner(model, example, importance=tp.importance.MagnitudeImportance(p=2),
                                       pruning_ratio=0.5,
                                       ignored_layers=[model.get_classifier()], round_to=8)  # fmt: skip
    pruner.step()
    assert sum(each.numel() for each in model.parameters()) < 0.8 * before
    output = model(torch.randn(2, 3, 64, 64))
    assert output.shape == (2, 10)
    output.sum().backward()


def test_vision_transformer():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10).eval()
    example = torch.randn(1, 3, 224, 224)
    heads = {}
    for module in model.modules():
        if isinstance(module, timm.models.vision_transformer.Attention):
            heads[module.qkv] = module.num_heads
            module.fused_attn = False
    assert len(heads) == 12
    pruner = tp.pruner.MagnitudePruner(model, example, importance=tp.importance.MagnitudeImportance(p=2),
                                       pruning_ratio=0.5,
                                       ignored_layers=[model.head], num_heads=heads, prune_num_heads=False,
                                       prune_head_dims=True)  # fmt: skip
    pruner.step()
    for module in model.modules():
        if isinstance(module, timm.models.vision_transformer.Attention):
            module.num_heads = pruner.num_heads[module.qkv]
            module.head_dim = module.qkv.out_features // (3 * module.num_heads)
    assert model(torch.randn(1, 3, 224, 224)).shape == (1, 10)
    macs, params = tp.utils.count_ops_and_params(model, example)
    assert macs > 0 and params < 5.7e6
