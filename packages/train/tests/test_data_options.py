"""What a run says of its data and takes of it: held back images, samplers, augmentations, odd names, 12-bit values."""

import csv
import io
import json
import os
import tarfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from imgzoo_train.cli.predict import command as predict
from imgzoo_train.cli.train import command as train
from imgzoo_train.cli.validate import command as validate

TINY = ["--epochs", "1", "--input-size", "16", "--batch-size", "4", "--device", "cpu", "--threads", "1"]


def invoke(command, *arguments):
    result = CliRunner().invoke(command, [str(part) for part in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def fails(command, *arguments) -> str:
    result = CliRunner().invoke(command, [str(part) for part in arguments])
    assert result.exit_code != 0
    return f"{result.output}{result.exception}"


@pytest.fixture
def flat(tmp_path):
    for number, (name, count) in enumerate((("ant", 12), ("bee", 8))):
        (tmp_path / "flat" / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (20, 20), (index * 12, 90 * number, 40)).save(tmp_path / "flat" / name / f"{index}.png")
    return f"folder:{tmp_path / 'flat'}"


def test_images_are_held_back_and_the_run_folder_says_which(flat, tmp_path):
    common = ["test_resnet", "--data", flat, *TINY]
    assert "--val-share 0.1" in fails(train, *common, "--output", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    out = tmp_path / "run"
    shown = invoke(train, *common, "--val-share", 0.25, "--sampler", "balanced", "--hflip", 0, "--output", out).output
    assert "validation: 5 images of 2 classes (2 to 3 each)" in shown and "shared: no samples" in shown
    rows = list(csv.DictReader((out / "split.csv").read_text().splitlines()))
    assert len(rows) == 20 and [row["split"] for row in rows].count("validation") == 5
    told = json.loads((out / "environment.json").read_text())["data"]
    assert told["validation"]["samples"] == 5 and "held back" in told["validation"]["served"]
    assert "2 (2 to 3 each)" in (out / "report.html").read_text()
    again = tmp_path / "again"
    invoke(train, "--config", out / "config.toml", "--output", again)
    assert (again / "split.csv").read_text() == (out / "split.csv").read_text()


def test_a_dry_run_describes_the_data(flat):
    shown = invoke(train, "test_resnet", "--data", flat, *TINY, "--val-share", 0.25, "--dry-run").output
    for part in ("train: 15 images of 2 classes", "classes by the folder's name", "8-bit values 0..", "shared: no"):
        assert part in shown, part


def test_names_that_are_no_utf_8_train_to_the_end(tmp_path):
    for part, blue in (("train", 40), ("val", 200)):
        for number, name in enumerate((b"caf\xe9", b"tea")):
            folder = os.path.join(os.fsencode(tmp_path), b"d", part.encode(), name)
            os.makedirs(folder)
            for index in range(3):
                Image.new("RGB", (20, 20), (index * 40, 90 * number, blue)).save(os.fsdecode(folder) + f"/{index}.png")
    out = tmp_path / "run"
    invoke(train, "test_resnet", "--data", f"folder:{tmp_path / 'd'}", *TINY, "--output", out)
    assert json.loads((out / "best" / "config.json").read_text())["label_names"] == ["caf\\xe9", "tea"]
    assert "caf\\xe9" in (out / "report.html").read_text()


def test_the_range_of_values_travels_to_predict(tmp_path):
    for part in ("train", "val"):
        for number, name in enumerate("ab"):
            (tmp_path / "d" / part / name).mkdir(parents=True)
            for index in range(4):
                array = np.random.default_rng([number, index, part == "val"]).integers(0, 4096, (20, 20))
                Image.fromarray(array.astype(np.uint16)).save(tmp_path / "d" / part / name / f"{index}.png")
    common = ["test_resnet", "--data", f"folder:{tmp_path / 'd'}", *TINY, "--in-chans", 1]
    assert "pass range=4095" in fails(train, *common, "--output", tmp_path / "r0")
    out = tmp_path / "run"
    invoke(train, *common, "--range", 4095, "--output", out)
    shown = invoke(predict, tmp_path / "d" / "val" / "a" / "0.png", "--model", out).output
    assert "%" in shown and "error" not in shown


@pytest.mark.filterwarnings("ignore:test_resnet was built without weights")
def test_every_command_has_the_pixel_limit(flat, tmp_path):
    limit = ["--max-pixels", 100]
    model = ["test_resnet", "--pretrained", "false"]
    assert "above the limit of 100" in fails(validate, *model, "--data", flat, "--img-size", 32, *limit)
    shown = fails(predict, tmp_path / "flat" / "ant" / "0.png", "--model", *model, *limit)
    assert "above the limit of 100" in shown
    options = ["--val-share", 0.25, "--output", tmp_path / "r"]
    assert "above the limit of 100" in fails(train, "test_resnet", "--data", flat, *TINY, *options, *limit)


def test_predict_searches_linked_folders_and_no_hidden_files(tmp_path):
    from imgzoo_train.models.prediction import find_images

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "d").mkdir()
    for name in ("2.png", "10.png", "._2.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere" / name, "PNG")
    os.symlink(tmp_path / "elsewhere", tmp_path / "d" / "cat")
    os.symlink(tmp_path / "d", tmp_path / "elsewhere" / "loop")
    assert [path.name for path in find_images([tmp_path / "d"])] == ["2.png", "10.png"]


def test_cells_of_several_labels_name_the_option_that_reads_them(tmp_path):
    for number in range(6):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / f"{number}.png")
    cells = ["ant|bee", "ant", "bee", "ant|bee", "ant", "bee"]
    (tmp_path / "list.csv").write_text(
        "\n".join(["image,label", *(f"{number}.png,{cell}" for number, cell in enumerate(cells))])
    )
    source = f"csv:{tmp_path / 'list.csv'}"
    common = ["test_resnet", *TINY, "--val-share", 0.5, "--allow-shared", "--dry-run"]
    said = fails(train, *common, "--data", source, "--task", "multilabel")
    assert "--task multilabel does not fit it; ?target_format=labels after the source" in said


def test_streams_are_scored_and_not_trained_on(tmp_path):
    with tarfile.open(tmp_path / "train-0.tar", "w") as train_tar, tarfile.open(tmp_path / "val-0.tar", "w") as val_tar:
        for number in range(16):
            picture, label = io.BytesIO(), str(number % 2).encode()
            Image.new("RGB", (20, 20), (200 * (number % 2), 0, number)).save(picture, "PNG")
            for name, data in ((f"{number}.png", picture.getvalue()), (f"{number}.cls", label)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                (train_tar if number < 12 else val_tar).addfile(info, io.BytesIO(data))
    source, run = f"wds:{tmp_path}", tmp_path / "run"
    stream = f"{source}?streaming=true&num_classes=2"
    said = fails(train, "test_resnet", "--data", stream, *TINY, "--output", run)
    assert "is a stream; a run seeks in its data" in said and not run.exists()
    invoke(train, "test_resnet", "--data", source, *TINY, "--output", run)
    assert "unknown length: add num_samples= to it" in fails(validate, run, "--data", stream)
    counted = f"{stream}&num_samples=4"
    rows = fails(validate, run, "--data", counted, "--output", tmp_path / "rows.jsonl")
    assert "is a stream, whose images have no names" in rows
    scores = [json.loads(invoke(validate, run, "--data", data, "--json").stdout) for data in (source, counted)]
    assert scores[0]["n"] == scores[1]["n"] == 4 and scores[0]["top1"] == scores[1]["top1"]


@pytest.mark.parametrize("channels, asked", [(5, None), (3, 7)])
def test_images_of_other_channels_are_refused_before_the_first_batch(tmp_path, channels, asked):
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(4):
                pixels = np.random.default_rng([index, ord(name[0]), len(split)]).integers(0, 255, (8, 8, channels))
                np.save(tmp_path / split / name / f"{index}.npy", pixels.astype(np.uint8))
    common = ["test_resnet", "--data", f"folder:{tmp_path}", *TINY, "--output", tmp_path / "run", "--dry-run"]
    given = [] if asked is None else ["--in-chans", asked]
    text = f"the image has {channels} channels; the network takes {asked or 3}; --in-chans {channels} builds"
    assert text in fails(train, *common, *given)
    invoke(train, *common, "--in-chans", channels)
