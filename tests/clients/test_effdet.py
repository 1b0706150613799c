"""effdet: create, a training step, predictions."""

import pytest
import torch
from effdet import EfficientDet, create_model, get_efficientdet_config


@pytest.mark.parametrize("backbone", ["tf_efficientdet_lite0", "efficientdet_d0", "resdet50"])
def test_models_train_and_predict(backbone):
    assert get_efficientdet_config(backbone).backbone_name
    bench = create_model(backbone, bench_task="train", num_classes=3, pretrained=False, pretrained_backbone=False,
                         image_size=(128, 128), bench_labeler=True)  # fmt: skip
    target = {"bbox": torch.tensor([[[10.0, 10, 60, 60]]] * 2), "cls": torch.tensor([[1.0]] * 2),
              "img_size": torch.tensor([[128.0, 128.0]] * 2), "img_scale": torch.ones(2)}  # fmt: skip
    bench.train()
    losses = bench(torch.randn(2, 3, 128, 128), target)
    losses["loss"].backward()
    assert all(each.grad is not None for each in bench.model.backbone.parameters())
    predict = create_model(backbone, bench_task="predict", num_classes=3, pretrained=False, pretrained_backbone=False,
                           image_size=(128, 128)).eval()  # fmt: skip
    with torch.no_grad():
        found = predict(torch.randn(1, 3, 128, 128))
    assert found.shape[-1] == 6


def test_levels_from_inside_the_blocks():
    config = get_efficientdet_config("efficientdet_w0")
    assert config.backbone_args["feature_location"] == "depthwise"
    config.image_size = (128, 128)
    model = EfficientDet(config, pretrained_backbone=False).eval()
    assert model.backbone.feature_info.channels() == [240, 672, 1152]
    classes, boxes = model(torch.randn(1, 3, 128, 128))
    assert len(classes) == len(boxes) == config.num_levels
