"""What validate writes, answers from Python, mirrored images, callbacks of a script."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_answers import NAMES, TASKS, Pictures, data, folders, invoke  # noqa: F401
from test_changed_resume import go  # noqa: F401

from imgzoo.errors import UsageError
from imgzoo_train import Predictor
from imgzoo_train.cli import predict, train, validate


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


def test_classes_and_confusion_have_names_everywhere(tmp_path, folders, data):  # noqa: F811
    data("classification", "subset")
    common = [folders["classification"], "--data", "pictures:", "--device", "cpu", "--per-class", "--confusion"]
    row = json.loads(invoke(validate, *common, "--json"))
    assert [each["class"] for each in row["per_class"]] == NAMES
    assert row["confusion"] == {"classes": NAMES, "rows": [[0] * 4, [0] * 4, [0, 0, 16, 0], [0, 0, 0, 16]]}
    text = invoke(validate, *common, "--output", tmp_path / "scores.csv")
    assert text.count("cat") >= 3
    classes = list(csv.DictReader((tmp_path / "scores.per_class.csv").read_text().splitlines()))
    assert {each["class"]: float(each["recall"]) for each in classes}["dog"] == 100
    pairs = list(csv.DictReader((tmp_path / "scores.confusion.csv").read_text().splitlines()))
    assert next(pair for pair in pairs if pair["true"] == "cat")["cat"] == "16"
    with pytest.raises(UsageError, match="--output takes"):
        invoke(validate, *common, "--output", tmp_path / "scores.xlsx")


def test_several_labels_have_scores_of_each_class(folders, data):  # noqa: F811
    data("multilabel", "permuted")
    common = [folders["multilabel"], "--data", "pictures:", "--device", "cpu", "--per-class", "--json"]
    rows = json.loads(invoke(validate, *common))["per_class"]
    assert [row["class"] for row in rows] == ["dog", "ant", "cat", "bee"]
    assert all(row["ap"] > 99 for row in rows)


def test_mirrored_answers_are_the_mean(tmp_path, folders, data):  # noqa: F811
    data("classification", "same")
    row = json.loads(invoke(validate, folders["classification"], "--data", "pictures:", "--tta", "flip", "--json"))
    assert row["top1"] == 100
    image = Pictures("classification", NAMES)[1].data
    image[:, :8] = 0
    both = []
    for name, pixels in (("a", image), ("b", image[:, ::-1])):
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{name}.png")
        common = [tmp_path / f"{name}.png", "--model", folders["classification"], "--json"]
        plain, mean = (json.loads(invoke(predict, *common, *more))[0]["classes"] for more in ([], ["--tta", "flip"]))
        both.append({answer["class"]: answer["probability"] for answer in mean})
        assert plain != mean
    assert both[0] == pytest.approx(both[1], abs=1e-5)


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


def test_a_script_follows_a_run_and_can_end_it(go, monkeypatch):  # noqa: F811
    from imgzoo_train import run as runs

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
