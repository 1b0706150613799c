"""fastai: `vision_learner` and `create_timm_model` by timm names."""

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def loaders(tmp_path):
    from fastai.vision.all import ImageDataLoaders, Resize

    drawn = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for i in range(8):
            Image.fromarray(drawn.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / kind / f"{i}.png")
    return ImageDataLoaders.from_folder(tmp_path, valid_pct=0.5, seed=0, bs=4, item_tfms=Resize(64), num_workers=0)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "mobilenetv3_small_100"])
def test_a_learner_fine_tunes(loaders, name):
    from fastai.vision.all import accuracy, vision_learner

    learner = vision_learner(loaders, name, metrics=accuracy, pretrained=False, normalize=False)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(1)
    predictions, _ = learner.get_preds(dl=loaders.valid)
    assert predictions.shape == (len(loaders.valid_ds), 2) and torch.isfinite(predictions).all()


def test_statistics_of_the_configuration(loaders):
    from fastai.vision.learner import create_timm_model

    model, cfg = create_timm_model("resnet18", 2, pretrained=False)
    assert tuple(cfg["mean"]) == (0.485, 0.456, 0.406) and model(torch.randn(2, 3, 64, 64)).shape == (2, 2)
