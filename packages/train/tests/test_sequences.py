"""Images at their own shape, as sequences of patches: train, validate, predict and export."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from train_commands import fails, invoke

import imgzoo
from imgzoo_train.cli import export, predict, train, validate
from imgzoo_train.models import sequences

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 4}
SET = [part for key, value in SMALL.items() for part in ("--set", f"model.options.{key}={value}")]
NAFLEX, VIT = ["naflexvit_base_patch16_gap", *SET], ["vit_tiny_patch16_224", *SET]
QUICK = ["--batch-size", 4, "--device", "cpu", "--threads", 1]
SHAPES = [(64, 64), (32, 96), (96, 32), (48, 80)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes told apart by their color, in four shapes."""
    folder, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for split, count in (("train", 8), ("validation", 4)):
        for label, color in (("blue", (40, 60, 200)), ("red", (200, 60, 40))):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                shape = SHAPES[i % 4]
                pixels = np.clip(np.array(color) + rng.normal(0, 20, (*shape, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")
    return folder


@pytest.fixture(scope="module", params=[NAFLEX, VIT], ids=["naflexvit", "vit"])
def run(request, photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    extra = ["--mixup", 0.2, "--cutmix", 1.0, "--erase", 0.5] if request.param is NAFLEX else []
    arguments = [*request.param, "--data", f"folder:{photos}", "--sequence", "12,24", "--epochs", 4, "--lr", 0.01]
    invoke(train, *arguments, *extra, *QUICK, "--output", folder)
    return folder


def test_a_run_learns_and_its_folder_remembers_the_length(run, photos):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(row.get("top1", 0) for row in rows) >= 75
    assert json.loads((run / "best" / "config.json").read_text())["imgzoo"]["sequence"] == 24


def test_validate_and_predict_see_the_same_shapes(run, photos, tmp_path):
    found = tmp_path / "rows.jsonl"
    invoke(validate, run, "--data", f"folder:{photos}", "--batch-size", 8, "--output", found)
    scored = {row["key"]: row for row in map(json.loads, found.read_text().splitlines())}
    named = json.loads(invoke(predict, photos / "validation", "--model", run, "--json", "--embed").output)
    assert len(named) == len(scored) == 8 and len(named[0]["embedding"]) == 32
    for row in named:
        key = next(key for key in scored if row["file"].endswith(key))
        assert row["classes"][0]["class"] == scored[key]["answer"], key
        assert row["classes"][0]["probability"] == pytest.approx(max(scored[key]["scores"]), abs=1e-5)
    one_size = json.loads(invoke(predict, photos / "validation", "--model", run, "--json", "--sequence", 0).output)
    assert [row["classes"] for row in one_size] != [row["classes"] for row in named]


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_a_network_of_patches_exports_them(form, tmp_path):
    torch.manual_seed(0)
    model = imgzoo.create_model(NAFLEX[0], **SMALL, num_classes=3)
    imgzoo.save_model(model, tmp_path / "model")
    output = tmp_path / f"file.{'onnx' if form == 'onnx' else 'pt2'}"
    arguments = [tmp_path / "model", "--format", form, "--output", output, "--sequence", 20, "--json"]
    report = json.loads(invoke(export, *arguments).output)
    assert (
        report["sequence"] == 20 and report["relative_difference"] < 1e-4 and set(report["batches"]) == {"1", "2", "5"}
    )
    longer = sequences.example_patches(model, 35, 3)
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
        assert [given.name for given in session.get_inputs()] == ["patches", "coordinates", "valid"]
        found = session.run(None, {key: value.numpy() for key, value in longer._asdict().items()})[0]
    else:
        found = torch.export.load(output).module()(*longer).detach().numpy()
    np.testing.assert_allclose(found, model.eval()(longer).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("more", "text"), [
    (["--sizes", "16,24"], "--sequence and --sizes do not go together"),
    (["--teacher", "test_vit"], "--sequence and --teacher do not go together"),
    (["--torchscript", "trace"], "--sequence and --torchscript do not go together"),
    (["--sequence", "0"], "--sequence must be from 1 to 65536 patches, not 0"),
])  # fmt: skip
def test_what_contradicts_sequences_is_refused(more, text, photos, tmp_path):
    arguments = [*NAFLEX, "--data", f"folder:{photos}", "--sequence", "24", *more, *QUICK, "--output", tmp_path / "run"]
    assert text in fails(train, *arguments)


def test_networks_of_one_size_say_so(photos, tmp_path):
    arguments = ["--data", f"folder:{photos}", "--sequence", 24, *QUICK, "--output", tmp_path / "run"]
    assert "takes images of one size" in fails(train, "cait_xxs24_224", *arguments)
    model = imgzoo.create_model("test_vit", num_classes=2)
    imgzoo.save_model(model, tmp_path / "model")
    assert "leave --sequence out" in fails(
        export, tmp_path / "model", "--sequence", 20, "--output", tmp_path / "x.onnx"
    )
    imgzoo.save_model(sequences.begin(model, [20]), tmp_path / "patches")
    for options in (["--tta", "flip"], ["--img-size", 64]):
        for module, arguments in (
            (predict, [photos, "--model", tmp_path / "patches"]),
            (validate, [tmp_path / "patches", "--data", f"folder:{photos}"]),
        ):
            assert f"{options[0]} is about images of one size" in fails(module, *arguments, *options)
