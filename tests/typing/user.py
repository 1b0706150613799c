"""What a type checker sees of a user's file: `nox -s lint` runs pyright over it, an ignore that hides nothing fails."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

import torch

import imgzoo
import imgzoo_data
import imgzoo_optim
import imgzoo_train
from imgzoo.features import FeatureModel
from imgzoo.specs import ModelSpec

model = imgzoo.create_model("resnet18", pretrained=True, num_classes=10)
assert_type(model, imgzoo.ImageModel)
assert_type(imgzoo.create_model("resnet18", features_only=True, out_indices=(1, 2)), FeatureModel)
assert_type(imgzoo.list_models("vit_*"), list[str])
assert_type(imgzoo.is_model("resnet18"), bool)
assert_type(imgzoo.get_spec("resnet18"), ModelSpec)
imgzoo.save_model(model, "folder")
imgzoo.load_checkpoint(model, "file.safetensors")

source = imgzoo.create_dataset("folder:photos", split="train")
transform = imgzoo.create_transform(imgzoo.resolve_data_config(model), training=True)
loader = imgzoo.create_loader(source, transform, batch_size=8, training=True)
assert_type(loader, imgzoo_data.Loader)

optimizer = imgzoo.create_optimizer("adamw", model, lr=1e-3)
assert_type(optimizer, torch.optim.Optimizer)
schedule: imgzoo_optim.Schedule = imgzoo.create_scheduler("cosine", optimizer, total=100)
loss = imgzoo.create_loss("cross-entropy")
deployed = imgzoo.deploy(model)
assert imgzoo_optim.explain and imgzoo_train.train


@imgzoo.register_model
class Own(imgzoo.ImageModel): ...


assert_type(Own, type[Own])

imgzoo.creat_model("resnet18")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
imgzoo_data.create_loaders  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
imgzoo_optim.create_optimiser  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
imgzoo_train.trains  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
imgzoo.list_models(7)  # pyright: ignore[reportArgumentType]
imgzoo.create_model("resnet18", pretrain=True).name  # options of a family pass
