"""What evaluates a network leaves each of its modules in the mode in which it was, and answers as in evaluation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from imgzoo import create_model
from imgzoo_train import Predictor, deploy, evaluate, export
from imgzoo_train.explaining.explanation import explain
from imgzoo_train.models.sizes import check_size


@pytest.fixture
def model():
    """In training, with one part that was put into evaluation: its norms are frozen."""
    torch.manual_seed(0)
    model = create_model("test_resnet", num_classes=3, drop_rate=0.5).train()
    model.layer1.eval()
    return model


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8)).save(path)
    return path


def batches(model):
    images = torch.randn(4, *model.pretrained_cfg["input_size"])
    return [SimpleNamespace(images=images, targets=torch.tensor([0, 1, 2, 0]), indices=torch.arange(4))]


WORK = {
    "deploy": lambda model, folder, photo: deploy(model, threads=1),
    "deploy, refused": lambda model, folder, photo: deploy(model, threads=1, tolerance=0.0),
    "export": lambda model, folder, photo: export(model, folder / "net.pt2", "torch"),
    "evaluate": lambda model, folder, photo: evaluate(model, batches(model), classes=3),
    "check_size": lambda model, folder, photo: check_size(model, 96, (64, 96)),
    "check_size, refused": lambda model, folder, photo: check_size(model, 0),
    "predict": lambda model, folder, photo: Predictor(model)(photo),
    "predict views": lambda model, folder, photo: Predictor(model, tta="flip")(photo),
    "explain": lambda model, folder, photo: explain(Predictor(model), photo, "gradcam"),
}


@pytest.mark.parametrize("work", WORK)
def test_every_module_keeps_its_mode(work, model, tmp_path, photo):
    before = {name: module.training for name, module in model.named_modules()}
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    if "refused" in work:
        with pytest.raises(Exception, match=r"differs|images of 0x0"):
            WORK[work](model, tmp_path, photo)
    else:
        WORK[work](model, tmp_path, photo)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert not model.layer1.training
    assert model.layer2.training
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in model.named_buffers())


def test_a_predictor_answers_as_in_evaluation_whatever_its_model_does_meanwhile(model, photo):
    predictor = Predictor(model)
    first = predictor(photo)
    model.train()
    assert predictor(photo) == first
    assert first == Predictor(create_copy(model).eval())(photo)


def create_copy(model):
    other = create_model("test_resnet", num_classes=3)
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ready", [lambda model: model, lambda model: deploy(model, threads=1)])
def test_a_predictor_shows_images_in_the_precision_of_its_model(dtype, ready, model, photo):
    wanted, found = (Predictor(ready(each))(photo, topk=3)["classes"] for each in (create_copy(model), model.to(dtype)))
    assert [row["index"] for row in found] == [row["index"] for row in wanted]
    assert [row["probability"] for row in found] == pytest.approx([row["probability"] for row in wanted], abs=0.01)
    assert sum(row["probability"] for row in found) == pytest.approx(1, abs=1e-5)  # told in float32
    assert next(model.parameters()).dtype == dtype


def test_an_explanation_reads_a_model_in_its_precision(model, photo):
    found = explain(Predictor(model.double()), photo, "gradcam")
    assert float(found.relevance.sum()) == pytest.approx(1, abs=1e-4)


def test_a_predictor_leaves_its_model_where_it_is():
    model = create_model("test_resnet", device="meta")
    assert Predictor(model).device.type == next(model.parameters()).device.type == "meta"
