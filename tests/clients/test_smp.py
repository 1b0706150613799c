"""segmentation_models_pytorch: universal encoders, ViT encoders, and encoders derived from timm's networks."""

import pytest
import segmentation_models_pytorch as smp
import torch

ENCODERS = ["tu-resnet18", "tu-convnext_atto", "tu-efficientnet_b0", "tu-mobilenetv3_small_100",
            "tu-swin_tiny_patch4_window7_224",
            "tu-vgg11", "tu-regnetx_002", "tu-hrnet_w18_small", "timm-efficientnet-b0",
            "timm-tf_efficientnet_lite0", "timm-skresnet18", "timm-resnest14d", "timm-mobilenetv3_small_100",
            "timm-regnetx_002", "timm-gernet_s"]  # fmt: skip


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_segment_and_train(name):
    side = 224 if "swin" in name else 64
    model = smp.Unet(name, encoder_weights=None, classes=2)
    output = model(torch.randn(2, 3, side, side))
    assert output.shape == (2, 2, side, side)
    output.mean().backward()
    assert any(parameter.grad is not None for parameter in model.encoder.parameters())


@pytest.mark.parametrize("name", ["tu-resnet18", "tu-convnext_atto", "tu-mobilenetv3_small_100"])
def test_encoders_take_channels_and_depths(name):
    encoder = smp.encoders.get_encoder(name, in_channels=5, depth=4, weights=None)
    maps = encoder(torch.randn(1, 5, 64, 64))
    assert [each.shape[1] for each in maps] == encoder.out_channels
    assert [64 // each.shape[2] for each in maps] == [1, 2, 4, 8, 16]


def test_vit_encoder():
    model = smp.DPT("tu-vit_tiny_patch16_224", encoder_weights=None, classes=2, dynamic_img_size=True)
    assert model(torch.randn(2, 3, 224, 224)).shape == (2, 2, 224, 224)


def test_states_come_back():
    first, second = (smp.Unet("tu-resnet18", encoder_weights=None).eval() for _ in range(2))
    assert "encoder.model.layer1.0.conv1.weight" in first.state_dict()
    second.load_state_dict(first.state_dict())
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(first(x), second(x))


@pytest.mark.parametrize("name", ["tu-resnet18", "tu-convnext_atto_rms", "tu-resnest14d"])
def test_segmentation_scripts(name):
    model, x = smp.Unet(name, encoder_weights=None).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(model)(x), model(x))


def test_encoders_take_parts_of_a_clients_own():
    class Own(torch.nn.BatchNorm2d):
        pass

    encoder = smp.encoders.get_encoder("tu-resnet18", weights=None, norm_layer=Own, act_layer=torch.nn.SiLU)
    assert type(encoder.model.bn1) is Own and encoder(torch.randn(2, 3, 64, 64))[-1].shape == (2, 512, 2, 2)
