"""anomalib: the feature extractor, PaDiM, PatchCore."""

import pytest
import torch
from anomalib.models.components.feature_extractors import TimmFeatureExtractor
from anomalib.models.image.fastflow.torch_model import FastflowModel
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel


@pytest.mark.parametrize("name", ["resnet18", "wide_resnet50_2", "efficientnet_b0"])
def test_extractor(name):
    layers = ["blocks.1", "blocks.2"] if "efficient" in name else ["layer1", "layer2"]
    extractor = TimmFeatureExtractor(name, layers, pre_trained=False)
    maps = extractor(torch.randn(1, 3, 64, 64))
    assert list(maps) == layers
    assert [each.shape[1] for each in maps.values()] == extractor.out_dims


def test_padim():
    model = PadimModel(backbone="resnet18", layers=["layer1", "layer2"], pre_trained=False, n_features=20)
    model.train()
    for _ in range(2):
        model(torch.randn(4, 3, 64, 64))
    model.fit()
    model.eval()
    assert model(torch.randn(1, 3, 64, 64)).anomaly_map.shape == (1, 1, 64, 64)


def test_patchcore():
    model = PatchcoreModel(layers=["layer2"], backbone="resnet18", pre_trained=False, num_neighbors=2)
    model.train()
    model(torch.randn(4, 3, 64, 64))
    model.subsample_embedding(0.5)
    model.eval()
    assert model(torch.randn(1, 3, 64, 64)).anomaly_map.shape[-2:] == (64, 64)


def test_fastflow_over_a_distilled_transformer():
    model = FastflowModel(input_size=(384, 384), backbone="deit_base_distilled_patch16_384", pre_trained=False,
                          flow_steps=1)  # fmt: skip
    model.eval()
    assert model(torch.randn(1, 3, 384, 384)).anomaly_map.shape == (1, 1, 384, 384)
