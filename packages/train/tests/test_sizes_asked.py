"""`--img-size` builds a network that is made for one size anew: the tables of its weights follow."""

import json

import pytest
import torch
from PIL import Image
from train_commands import fails, invoke

import imgzoo
from imgzoo_train.cli import benchmark, embed, explain, predict, validate


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A saved network of 160 pixels, and a folder of three images."""
    top = tmp_path_factory.mktemp("sizes")
    model = imgzoo.create_model("test_vit", num_classes=3)
    imgzoo.save_model(model, top / "vit", class_names=["a", "b", "c"])
    for seed, name in enumerate("abc"):
        (top / "data" / name).mkdir(parents=True)
        noise = torch.randint(256, (99, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        Image.fromarray(noise.numpy()).save(top / "data" / name / "0.png")
    return top


def test_predictions_are_those_of_the_model_built_for_the_size(made):
    from imgzoo_train.models.prediction import Predictor

    image = made / "data" / "a" / "0.png"
    wanted = imgzoo.create_model(f"local-dir:{made / 'vit'}", pretrained=True, img_size=96)
    assert wanted.img_size == (96, 96)
    (row,) = json.loads(invoke(predict, image, "--model", made / "vit", "--img-size", 96, "--json").output)
    expected = Predictor(wanted, img_size=96)(str(image), topk=3)
    found = [(answer["class"], pytest.approx(answer["probability"], abs=1e-5)) for answer in row["classes"]]
    assert [(answer["class"], answer["probability"]) for answer in expected["classes"]] == found


def test_every_command_takes_the_size(made):
    data, model, size = f"folder:{made / 'data'}", made / "vit", ("--img-size", 96)
    invoke(validate, model, "--data", data, *size)
    invoke(embed, data, "--model", model, "--output", made / "e.npy", *size)
    invoke(explain, made / "data" / "a" / "0.png", "--model", model, "--method", "occlusion", "--output",
           made / "x.png", *size)  # fmt: skip
    invoke(benchmark, model, "--mode", "inference", *size)


@pytest.mark.parametrize("command", [predict, benchmark])
def test_a_size_that_cannot_be_is_one_sentence(made, command):
    words = (made / "data", "--model", made / "vit") if command is predict else (made / "vit",)
    assert "smaller than a patch" in fails(command, *words, "--img-size", 7)
