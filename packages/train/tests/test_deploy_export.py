"""Deployment and export: the same answers, folded and in other formats."""

import re
import warnings

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from train_commands import fails

from imgzoo import create_model, deploy
from imgzoo.errors import UsageError
from imgzoo_train import load_deployed
from imgzoo_train.models.exporting import export
from imgzoo_train.models.folding import fold_batch_norms, reparameterize


def lively(name: str, **options):
    """A model whose batch norms do something."""
    torch.manual_seed(0)
    model = create_model(name, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


MODELS = ["test_resnet", "test_efficientnet", "test_vit"]


@pytest.mark.parametrize("name", MODELS)
def test_deployed_models_answer_the_same(name):
    model = lively(name)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    deployed = deploy(model)
    assert deployed.parity.folded == norms
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
    assert deployed.parity.relative_difference < 1e-4
    assert deployed.parity.top1_agreement == 1.0
    images = torch.randn(3, *model.pretrained_cfg["input_size"])
    with torch.no_grad():
        torch.testing.assert_close(deployed(images), model(images), rtol=1e-3, atol=1e-4)


IMAGES = torch.zeros(2, 3, 160, 160)


@pytest.mark.parametrize(("given", "message"), [
    ({"example": IMAGES[:, :1]}, r"batch \(B, 3, H, W\) of float32, not \(2, 1, 160, 160\) of float32"),
    ({"example": IMAGES[0]}, r"not \(3, 160, 160\) of float32"),
    ({"example": IMAGES[:0]}, r"not \(0, 3, 160, 160\)"),
    ({"example": IMAGES.double()}, "of float32, not .* of float64"),
    ({"example": IMAGES.byte().numpy()}, "of float32, not .* of uint8"),
    ({"example": "photo.png"}, "a batch of images, not str"),
    ({"example": IMAGES + torch.nan}, "not finite"),
    ({"tolerance": -1}, "tolerance is a number from 0, not -1"),
    ({"tolerance": float("nan")}, "tolerance is a number from 0, not nan"),
    ({"patience": "1"}, "patience is a number from 0, not '1'"),
])  # fmt: skip
def test_what_deploy_cannot_begin_with_is_told(given, message):
    with pytest.raises(UsageError, match=message):
        deploy(create_model("test_resnet"), **given)


def test_an_example_may_be_of_numpy():
    assert deploy(create_model("test_resnet"), example=IMAGES.numpy()).report["batch"] == 2


@pytest.mark.parametrize("given", [None, "test_resnet", nn.Linear(2, 2)])
def test_only_networks_of_imgzoo_are_deployed(given):
    with pytest.raises(UsageError, match=f"imgzoo.create_model has made, not {type(given).__name__}$"):
        deploy(given)


def test_a_deployed_network_is_not_deployed_again():
    with pytest.raises(UsageError, match="not Deployed: it is deployed already"):
        deploy(deploy(create_model("test_resnet")))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_in_another_precision_stays_in_it(dtype, tmp_path):
    model = create_model("test_resnet").to(dtype).eval()
    deployed, images = deploy(model), torch.randn(2, 3, 160, 160).to(dtype)
    assert deployed(images).dtype == dtype
    again = load_deployed(deployed.save(tmp_path / "net.imgzoo"))
    assert torch.equal(again(images), deployed(images))
    for each in (deployed, again):
        with pytest.raises(UsageError, match=f"of {str(dtype)[6:]}, not .* of float32"):
            each(images.float())
    with pytest.raises(UsageError, match=r"onnxruntime takes a network of float32, not .*call model.float\(\) first"):
        deploy(model, "onnxruntime")


def test_what_is_no_image_is_told_to_a_deployed_network():
    with pytest.raises(UsageError, match=r"takes a batch \(B, 3, H, W\) of float32, not NoneType"):
        deploy(create_model("test_resnet"))(None)


def test_a_norm_whose_input_is_read_twice_is_not_folded():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.conv2, self.norm2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            y = self.norm(x) + x
            return self.norm2(self.conv2(y))

    model = Twice().eval()
    nn.init.uniform_(model.norm.running_mean)
    nn.init.uniform_(model.norm2.running_mean)
    images = torch.randn(2, 3, 4, 4)
    before = model(images)
    assert fold_batch_norms(model, images[:1]) == 1
    assert isinstance(model.norm, nn.BatchNorm2d)
    assert isinstance(model.norm2, nn.Identity)
    torch.testing.assert_close(model(images), before)


def test_a_layer_that_runs_twice_is_not_folded():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(self.conv(self.conv(x)))

    model = Shared().eval()
    assert fold_batch_norms(model, torch.randn(1, 3, 4, 4)) == 0


def test_modules_are_asked_to_reparameterize_outermost_first():
    """One that merges its branches, as FastViT's mixer does, reads them whole."""
    order = []

    class Part(nn.Module):
        def __init__(self, name, inner=None):
            super().__init__()
            self.label, self.inner = name, inner

        def reparameterize(self):
            order.append(self.label)
            if self.label == "merging":
                self.inner = None

    shared = Part("shared")
    network = nn.Sequential(shared, Part("outer", Part("inner")), Part("merging", Part("gone")), shared)
    assert reparameterize(network) == 4
    assert set(order) == {"shared", "outer", "inner", "merging"}
    assert order.index("outer") < order.index("inner")


slow = pytest.mark.slow
CASES = [
    *((name, "torchscript") for name in MODELS),
    ("test_resnet", "torch"),
    ("test_resnet", "onnx"),
    *(pytest.param(name, "torch", marks=slow) for name in ("test_efficientnet", "test_vit")),
    *(pytest.param(name, "onnx", marks=slow) for name in ("test_efficientnet", "test_vit")),
]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_exported_files_answer_the_same_for_any_batch(tmp_path, name, form):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    model = lively(name, num_classes=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = export(model, tmp_path / "model.bin", form)
    assert set(report["batches"]) == {"1", "2", "5"}
    assert report["relative_difference"] < 1e-4
    assert (tmp_path / "model.bin.json").is_file()


def test_the_command_reports_parity(tmp_path):
    from imgzoo_train.cli.export import command

    target = tmp_path / "m.pt2"
    result = CliRunner().invoke(
        command, ["test_resnet", "--pretrained", "false", "--format", "torch", "--fold", "--output", str(target)]
    )
    assert result.exit_code == 0, result.output
    assert "same answer 100%" in result.output
    assert target.is_file()


@pytest.mark.parametrize(
    ("end", "options", "advice"),
    [
        (".pt2", [], r"\.pt2 is the end of --format torch: add that, or call --output m\.onnx$"),
        (".onnx", ["--format", "torchscript"], r"\.onnx is the end of --format onnx: .* --output m\.ts$"),
        (".imgzoo", [], r"\.imgzoo is the end of --engine: add that, or call --output m\.onnx$"),
    ],
)
def test_a_file_whose_end_says_another_format_is_not_written(tmp_path, end, options, advice):
    from imgzoo_train.cli import export as module

    said = fails(module, "test_resnet", "--pretrained", "false", *options, "--output", tmp_path / f"m{end}")
    assert re.search(advice, said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["onnx", "torch", "torchscript"])
def test_a_file_of_another_kind_is_not_written_over(tmp_path, form):
    from imgzoo_train.cli import export as module
    from imgzoo_train.models.exporting import SUFFIXES

    picture = tmp_path / "photo.png"
    picture.write_bytes(b"pixels")
    said = fails(module, "test_resnet", "--pretrained", "false", "--format", form, "--output", picture)
    assert f"--output takes a {SUFFIXES[form]} file, not 'photo.png'" in said
    assert picture.read_bytes() == b"pixels"
