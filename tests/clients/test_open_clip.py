"""open_clip: towers that name timm models."""

import open_clip
import pytest
import torch
from open_clip.timm_model import TimmModel

TEXT = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}


POOLS = [("avg", "linear"), ("avg", ""), ("abs_attn", ""), ("rot_attn", "mlp")]
TOWERS = [dict(timm_model_name="convnext_atto", timm_pool="avg", timm_proj="linear"),
          dict(timm_model_name="vit_tiny_patch16_224", timm_pool="map", timm_proj="none")]  # fmt: skip


@pytest.mark.parametrize(("pool", "proj"), POOLS)
def test_towers(pool, proj):
    tower = TimmModel("resnet18", 32, 224, pool=pool, proj=proj)
    output = tower(torch.randn(2, 3, 224, 224))
    assert output.shape == (2, 32)
    output.sum().backward()
    tower.set_grad_checkpointing()
    assert tower(torch.randn(2, 3, 224, 224)).shape == (2, 32)


def test_vit_tower_locks_by_groups():
    tower = TimmModel("vit_tiny_patch16_224", 32, 224, pool="token", proj="linear")
    tower.lock(unlocked_groups=2)
    free = [name for name, parameter in tower.trunk.named_parameters() if parameter.requires_grad]
    assert free and len(free) < len(list(tower.trunk.parameters()))
    tower.lock()


@pytest.mark.parametrize("vision", TOWERS)
def test_models_by_configuration(vision):
    width = 192 if vision["timm_proj"] == "none" else 32
    model = open_clip.CLIP(embed_dim=width, vision_cfg={"image_size": 224, **vision}, text_cfg=TEXT)
    images, texts = torch.randn(2, 3, 224, 224), torch.randint(0, 64, (2, 16))
    left, right, _ = model(images, texts)
    assert left.shape == right.shape == (2, width)


def test_a_factory_configuration_that_names_timm():
    model = open_clip.create_model("vit_relpos_medium_patch16_cls_224", pretrained=None)
    assert model.visual(torch.randn(1, 3, 224, 224)).shape[0] == 1
