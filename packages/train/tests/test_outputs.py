"""What validate says and writes, answers from Python, views of an image, callbacks of a script."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from test_answers import COLORS, NAMES, TASKS, Pictures, data, folders, invoke  # noqa: F401
from test_changed_resume import go  # noqa: F401

from imgzoo import create_model, save_model
from imgzoo.errors import DataError, UsageError
from imgzoo_train import Predictor
from imgzoo_train.cli import embed, export, predict, train, validate
from imgzoo_train.cli.options import TTA
from imgzoo_train.config.flags import FLAGS
from imgzoo_train.config.settings import Config
from imgzoo_train.features.store import read_features
from imgzoo_train.models.views import VIEWS, views_of


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize("task", TASKS)
def test_a_row_for_every_image(tmp_path, folders, data, task, suffix):  # noqa: F811
    data(task, "permuted")
    path = tmp_path / f"rows.{suffix}"
    invoke(validate, folders[task], "--data", "pictures:", "--device", "cpu", "--output", path)
    if suffix == "parquet":
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["key"] for row in rows] == [f"1-{index}.png" for index in range(32)]
    if task == "regression":
        assert np.allclose([row["target"] for row in rows], [row["answer"] for row in rows], atol=0.1)
    else:
        assert all(row["target"] == row["answer"] for row in rows)
    if task == "classification":
        assert {row["answer"] for row in rows} == set(NAMES)
        assert all(sum(row["scores"]) == pytest.approx(1, abs=1e-4) for row in rows)
    if task == "multilabel":
        assert all(len(row["scores"]) == 4 and set(row["answer"]) <= set(NAMES) for row in rows)


def test_files_of_any_name_have_their_row(tmp_path, folders):  # noqa: F811
    """The name of a file is bytes, a table holds Unicode."""
    table = pytest.importorskip("pyarrow.parquet")
    for name in NAMES:
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), COLORS[name]).save(tmp_path / "data" / "val" / name / "caf\udce9.png")
    model, source = folders["classification"], f"folder:{tmp_path / 'data'}"
    invoke(validate, model, "--data", source, "--device", "cpu", "--output", tmp_path / "rows.parquet")
    assert table.read_table(tmp_path / "rows.parquet")["key"].to_pylist() == [f"{name}/caf\\xe9.png" for name in NAMES]
    images = tmp_path / "data" / "val" / "ant"
    invoke(predict, images, "--model", model, "--device", "cpu", "--output", tmp_path / "answers.parquet")
    assert table.read_table(tmp_path / "answers.parquet")["file"].to_pylist() == [f"{images}/caf\\xe9.png"]
    features = tmp_path / "features.parquet"
    invoke(embed, source, "--model", model, "--split", "val", "--device", "cpu", "--output", features)
    assert read_features(features).keys == [f"{name}/caf\\xe9.png" for name in NAMES]


def test_classes_and_confusion_have_names_everywhere(tmp_path, folders, data):  # noqa: F811
    data("classification", "subset")
    common = [folders["classification"], "--data", "pictures:", "--device", "cpu", "--per-class", "--confusion"]
    row = json.loads(invoke(validate, *common, "--json"))
    assert [each["class"] for each in row["per_class"]] == NAMES
    assert row["confusion"] == {"classes": NAMES, "rows": [[0] * 4, [0] * 4, [0, 0, 16, 0], [0, 0, 0, 16]]}
    shown = CliRunner().invoke(validate.command, [*map(str, common), "--output", str(tmp_path / "scores.csv")])
    assert shown.stdout.count("cat") >= 3
    assert "2 of 4 classes have no image here: means over classes leave them out" in shown.stderr
    classes = list(csv.DictReader((tmp_path / "scores.per_class.csv").read_text().splitlines()))
    assert [each["recall"] for each in classes] == ["", "", "100.0", "100.0"]
    assert [each["recall"] for each in row["per_class"]] == [None, None, 100, 100]
    pairs = list(csv.DictReader((tmp_path / "scores.confusion.csv").read_text().splitlines()))
    assert next(pair for pair in pairs if pair["true"] == "cat")["cat"] == "16"
    with pytest.raises(UsageError, match="--output takes"):
        invoke(validate, *common, "--output", tmp_path / "scores.xlsx")


@pytest.mark.parametrize(
    "task, flag, needed",
    [
        ("regression", "--per-class", "classes"),
        ("regression", "--confusion", "one label an image"),
        ("multilabel", "--confusion", "one label an image"),
    ],
)
def test_tables_that_a_task_has_none_of_are_refused(folders, data, task, flag, needed):  # noqa: F811
    data(task, "same")
    with pytest.raises(UsageError, match=f"{flag} is about {needed}, .* answers with .*: leave it out"):
        invoke(validate, folders[task], "--data", "pictures:", "--device", "cpu", flag)


def test_several_labels_have_scores_of_each_class(folders, data):  # noqa: F811
    data("multilabel", "permuted")
    common = [folders["multilabel"], "--data", "pictures:", "--device", "cpu", "--per-class", "--json"]
    rows = json.loads(invoke(validate, *common))["per_class"]
    assert [row["class"] for row in rows] == ["dog", "ant", "cat", "bee"]
    assert all(row["ap"] > 99 for row in rows)


@pytest.mark.parametrize("views", ["flip", "five-crops", "scales", "flip,scales"])
def test_the_answers_to_views_are_averaged(tmp_path, folders, data, views):  # noqa: F811
    data("classification", "same")
    common = [folders["classification"], "--data", "pictures:", "--tta", views, "--json"]
    assert json.loads(invoke(validate, *common))["top1"] == 100
    assert json.loads(invoke(validate, *common, "--img-size", 32, "--batch-size", 8))["n"] == 32
    image = Pictures("classification", NAMES)[1].data
    image[:, :8] = 0
    Image.fromarray(image).save(tmp_path / "a.png")
    predictor = Predictor.open(folders["classification"])
    images = predictor.transform(image)[None]
    seen = list(views_of(images, views.split(",")))
    assert len(seen) == {"flip": 2, "five-crops": 5, "scales": 3, "flip,scales": 6}[views]
    assert all(view.shape == images.shape for view in seen) and len({view.sum().item() for view in seen}) > 1
    wanted = torch.stack([predictor.model(view) for view in seen]).mean(0).softmax(1)[0]
    common = [tmp_path / "a.png", "--model", folders["classification"], "--json"]
    plain, mean = (json.loads(invoke(predict, *common, *more))[0]["classes"] for more in ([], ["--tta", views]))
    assert {each["index"]: each["probability"] for each in mean} == pytest.approx(dict(enumerate(wanted.tolist())))
    assert plain != mean


def test_views_are_where_they_are_said_to_be():
    images = torch.arange(256.0).view(1, 1, 16, 16)
    means = [view.mean().item() for view in views_of(images, ["five-crops"])]
    assert [mean - means[1] for mean in means] == pytest.approx([17, 0, 2, 32, 34], abs=0.5)
    whole, *_ = views_of(images, ["scales"])
    assert torch.equal(whole, images)
    with pytest.raises(UsageError, match="--tta ten-crops is unknown; use any of flip: the image and"):
        invoke(validate, "test_resnet", "--data", "digits:", "--tta", "flip,ten-crops")
    assert list(VIEWS) == TTA.split(", or")[0].split(", ")


def test_validate_says_how_it_found_its_data_and_refuses_contradictions(tmp_path, folders):  # noqa: F811
    for name in ("ant", "bee"):
        (tmp_path / "d" / "val" / name).mkdir(parents=True)
        (tmp_path / "deep" / name).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (16, 16), COLORS[name]).save(tmp_path / "d" / "val" / name / f"{index}.png")
            gray = np.random.default_rng(index).integers(0, 4096, (16, 16)).astype(np.uint16)
            Image.fromarray(gray).save(tmp_path / "deep" / name / f"{index}.png")
    (tmp_path / "d" / "val" / "ant" / "notes.txt").write_text("")
    model = folders["classification"]
    twin = str(save_model(create_model(model, pretrained=True), tmp_path / "twin"))
    result = CliRunner().invoke(validate.command, [model, twin, "--data", f"folder:{tmp_path / 'd'}", "--json"])
    assert json.loads(result.stdout)[0]["top1"] == 100
    assert result.stderr.count("validation: 4 images of 2 classes (2 to 2 each); folder 'val'") == 1
    assert "left out: 1 " in result.stderr and ".txt" in result.stderr
    deep = [model, "--data", f"folder:{tmp_path / 'deep'}", "--json"]
    with pytest.raises(DataError, match="pass range=4095"):
        invoke(validate, *deep)
    rows = [json.loads(invoke(validate, *deep, "--range", 4095))]
    ranged = create_model(model, pretrained=True)
    ranged.pretrained_cfg |= {"range": (0, 4095)}
    rows.append(json.loads(invoke(validate, save_model(ranged, tmp_path / "m"), *deep[1:])))
    assert rows[0]["loss"] == rows[1]["loss"]
    common = [tmp_path / "deep" / "ant" / "0.png", "--model", model, "--json"]
    one, two = json.loads(invoke(predict, *common, "--range", 4095))[0], Predictor.open(model, range="4095")
    assert one["classes"] == two(common[0])["classes"]


def test_a_predictor_answers_a_path_an_array_bytes_and_a_pil_image(tmp_path, folders):  # noqa: F811
    predictor = Predictor.open(folders["classification"])
    pixels = Pictures("classification", NAMES)[2].data
    path = tmp_path / "one.png"
    Image.fromarray(pixels).save(path)
    rows = [predictor(form) for form in (path, str(path), pixels, path.read_bytes(), Image.open(path))]
    assert all(row["classes"][0]["class"] == "cat" for row in rows)
    probabilities = [row["classes"][0]["probability"] for row in rows]
    assert probabilities == pytest.approx([probabilities[0]] * 5)
    assert [row["classes"][0]["class"] for row in predictor([path, pixels], topk=1)] == ["cat", "cat"]
    turned = Image.fromarray(np.rot90(np.pad(pixels, ((0, 8), (0, 0), (0, 0))), -1).copy())
    exif = Image.Exif()
    exif[0x112] = 8
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    one, two = predictor(tmp_path / "turned.jpg"), predictor(Image.open(tmp_path / "turned.jpg"))
    assert one["classes"][0]["probability"] == pytest.approx(two["classes"][0]["probability"], abs=1e-3)


def test_a_pil_image_of_16_bits_is_what_its_file_is(tmp_path, folders):  # noqa: F811
    predictor = Predictor.open(folders["classification"])
    gray = np.random.default_rng(0).integers(0, 65536, (16, 16)).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "one.png")
    one, two = predictor(tmp_path / "one.png"), predictor(Image.open(tmp_path / "one.png"))
    assert one == two
    assert one != predictor(np.full((16, 16), 255, np.uint8))


def test_long_work_shows_on_a_terminal_how_far_it_is(tmp_path, monkeypatch, folders, data):  # noqa: F811
    data("classification", "same")
    paths = [tmp_path / f"{index}.png" for index in range(32)]
    for path in paths:
        Image.fromarray(Pictures("classification", NAMES)[0].data).save(path)
    model = folders["classification"]
    calls = [
        (
            [export, model, "--format", "torchscript", "--output", tmp_path / "m.ts"],
            "the answers to 5 images",
        ),
        ([validate, model, "--data", "pictures:", "--batch-size", "4"], "validate"),
        ([predict, *paths, "--model", model], "predict"),
    ]
    for terminal in (False, True):
        monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda console: terminal))  # noqa: B023
        for (module, *arguments), words in calls:
            result = CliRunner().invoke(module.command, [str(argument) for argument in arguments])
            assert result.exit_code == 0
            assert (words in re.sub(r"\s+", " ", result.stderr)) == terminal, (words, result.stderr)


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch, folders, data):  # noqa: F811
    from imgzoo_train.models import opening

    data("classification", "same")
    monkeypatch.setattr(opening, "open_model", lambda *arguments, **options: pytest.fail("it worked"))
    (tmp_path / "one.png").write_bytes(b"")
    (tmp_path / "taken.csv").mkdir()
    model, names = folders["classification"], ("missing/out.csv", "taken.csv")
    for name in names:
        path = tmp_path / name
        for arguments in ([validate, model, "--data", "pictures:"], [predict, tmp_path / "one.png", "--model", model],
                          [export, model]):  # fmt: skip
            with pytest.raises(UsageError, match=r"cannot write .*; choose another --output"):
                invoke(*arguments, "--output", path)


def test_a_split_that_is_not_there_is_asked_for_by_name(tmp_path, folders):  # noqa: F811
    for split in ("train", "test"):
        (tmp_path / split / "ant").mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / split / "ant" / "0.png")
    with pytest.raises(UsageError, match="it has test, train; name one with --split"):
        invoke(validate, folders["classification"], "--data", f"folder:{tmp_path}")


def test_a_script_follows_a_run_and_can_end_it(go, monkeypatch):  # noqa: F811
    from imgzoo_train.runs import run as runs

    seen = []

    def follow(run, row):
        seen.append((row["kind"], row.get("step")))
        if row["kind"] == "eval":
            run.state.stop = True

    original = runs.train
    monkeypatch.setattr(runs, "train", lambda config, **options: original(config, callbacks=[follow], **options))
    assert go(epochs=5)["epochs"] == 1
    assert ("eval", 4) in seen
    assert seen[-1] == ("end", 4)


def test_help_is_grouped_and_shows_defaults():
    text = CliRunner().invoke(train.command, ["--help"], terminal_width=200).output
    order = [
        text.index(f"\n{title}:") for title in ("Model", "Data", "Optimizer", "Schedule", "Loss", "Teacher", "Run")
    ]
    assert order == sorted(order)
    assert text.index("--batch-size") > order[1]
    assert text.index("--lr ") > order[2]
    for words in ("[default: 64]", "[default: adamw]", "[default: cosine]", "[default: 0.05]"):
        assert words in text
    assert "[default: ]" not in text
    plain, defaults = " ".join(text.split()), Config()
    for key, (flag, _) in FLAGS.items():
        section, _, name = key.rpartition(".")
        value = getattr(getattr(defaults, section) if section else defaults, name)
        if isinstance(value, bool):
            assert f"[default: {flag if value else f'--no-{flag[2:]}'}]" in plain, flag


@pytest.mark.parametrize(
    "name",
    [
        "validate",
        "predict",
        "export",
        "embed",
        "probe",
        "explain",
        "benchmark",
        "average",
        "sweep",
        "recommend",
        "list",
    ],
)
def test_every_command_shows_the_defaults_of_its_options(name):
    from imgzoo.cli.app import cli

    text = CliRunner().invoke(cli, [name, "--help"]).output
    assert "[default:" in text, name
    assert '[default: ""]' not in text and "[default: ]" not in text and "UNSET" not in text.upper(), name


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("loss", "focal", "gamma=2.0"),
        ("optimizer", "adamw", "betas=(0.9, 0.999)"),
        ("dataset", "csv", "delimiter=None"),
    ],
)
def test_info_shows_the_options_of_a_component(kind, name, words):
    from imgzoo.cli import info

    assert words in invoke(info, "--kind", kind, name)


def test_a_model_without_a_classifier_answers_with_its_features(tmp_path):
    save_model(create_model("test_resnet", num_classes=0), tmp_path / "model")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    predictor = Predictor.open(str(tmp_path / "model"))
    with pytest.raises(UsageError, match="test_resnet has no classifier to answer with: ask for --embed or --features"):
        predictor(tmp_path / "a.png")
    (row,) = predictor.rows([tmp_path / "a.png"], embed=True)
    assert len(row["embedding"]) == predictor.model.num_features and "classes" not in row
    output = tmp_path / "rows.json"
    given = [str(tmp_path / "a.png"), "--model", str(tmp_path / "model"), "--embed", "--output", str(output)]
    done = CliRunner().invoke(predict.command, given)
    assert done.exit_code == 0, done.output
