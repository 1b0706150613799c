"""Resume with other settings or other data: applied, said and written, or refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from imgzoo.errors import UsageError
from imgzoo_train import Checkpoints
from imgzoo_train.config.settings import Config, nested
from imgzoo_train.runs import run as runs

BASE = {
    "model.name": "test_resnet",
    "data.batch_size": 16,
    "data.input_size": 16,
    "optim.name": "adamw",
    "optim.lr": 0.01,
    "run.epochs": 2,
    "run.threads": 1,
    "run.device": "cpu",
    "run.stall": 0.0,
    "run.keep_last": 9,
}
SAID: list[str] = []


def pictures(root, names=("ant", "bee", "cat", "dog"), count=16, start=0):
    for split, number in (("train", count), ("val", 2)):
        for place, name in enumerate(names):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(start, start + number):
                rng = np.random.default_rng([place, index, split == "train"])
                pixels = np.full((16, 16, 3), 60 * place) + rng.normal(0, 9, (16, 16, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    return f"folder:{root}"


@pytest.fixture
def go(tmp_path, monkeypatch):
    data = pictures(tmp_path / "data")
    SAID.clear()
    monkeypatch.setattr(runs.Run, "say", lambda self, text: SAID.append(text))

    def run(resume=False, epochs=2, **changes):
        settings = {key.replace("__", "."): value for key, value in changes.items()}
        settings = {**BASE, "data.source": data, "run.epochs": epochs, **settings, "run.output": str(tmp_path / "run")}
        return runs.train(Config().merged(nested(settings), "test"), resume=resume, quiet=True)

    run.folder = tmp_path / "run"  # type: ignore[attr-defined]
    run.data = tmp_path / "data"  # type: ignore[attr-defined]
    return run


def evaluated(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["epoch"] for row in rows if row["kind"] == "eval"], [
        row["step"] for row in rows if row["kind"] == "eval"
    ]


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"data__batch_size": 32}, [4, 8, 10, 12]),
        ({"data__batch_size": 8}, [4, 8, 16, 24]),
        ({"optim__accumulate": 2}, [4, 8, 10, 12]),
    ],
)
def test_progress_is_counted_in_samples(go, changes, steps):
    go()
    summary = go(resume=True, epochs=4, **changes)
    assert summary["epochs"] == 4
    assert evaluated(go.folder) == ([1.0, 2.0, 3.0, 4.0], steps)
    again = go(resume=True, epochs=5, **changes)
    assert again["epochs"] == 5
    assert evaluated(go.folder)[0] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_in_the_middle_of_an_epoch_no_more_than_a_batch_is_seen_again(go, monkeypatch):
    def stop(self):
        raise runs.Interrupted(15)

    with monkeypatch.context() as patch:
        original = runs.Run.save_if_due

        def interrupt(self, state):
            original(self, state)
            if state.step == 6:
                stop(self)

        patch.setattr(runs.Run, "save_if_due", interrupt)
        with pytest.raises(runs.Interrupted):
            go()
    seen = []
    original_write = runs.Run.write
    monkeypatch.setattr(
        runs.Run, "write", lambda self, kind, row: (seen.append(row.get("images", 0)), original_write(self, kind, row))
    )
    go(resume=True, data__batch_size=8)
    assert evaluated(go.folder)[0] == [1.0, 2.0]
    assert sum(seen) == 32  # half an epoch of 64 was left


def test_what_changes_is_said_and_written(go):
    go()
    go(resume=True, epochs=3, data__batch_size=32, optim__weight_decay=0.2)
    written = Config.load(go.folder / "config.toml")
    assert (written.run.epochs, written.data.batch_size, written.optim.weight_decay) == (3, 32, 0.2)
    assert "going on from step 8, epoch 2" in SAID
    assert "changed since: --batch-size 16 -> 32, --weight-decay 0.05 -> 0.2, --epochs 2 -> 3" in SAID
    SAID.clear()
    go(resume=True, epochs=3, data__batch_size=32, optim__weight_decay=0.2)
    assert any("all 3 epochs are done; a larger --epochs goes on" in text for text in SAID)


def test_an_optimizers_numbers_are_taken_over(go):
    go()
    options = {"betas": [0.5, 0.6]}
    go(
        resume=True,
        epochs=3,
        optim__weight_decay=0.2,
        optim__options=options,
        optim__lr=0.002,
        schedule__name="constant",
    )
    found = Checkpoints(go.folder / "checkpoints").newest()
    groups = found.parts["optimizer"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.0, 0.2}
    assert {tuple(group["betas"]) for group in groups} == {(0.5, 0.6)}
    assert {group["lr"] for group in groups} == {0.002}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optim__name": "lion"}, "--opt adamw -> lion"),
        ({"model__freeze": ["backbone"]}, "--freeze"),
        ({"model__pretrained": "elsewhere"}, "--pretrained none -> elsewhere"),
        ({"optim__layer_decay": 0.7}, "--layer-decay none -> 0.7"),
        ({"model__name": "test_vit"}, "MODEL test_resnet -> test_vit"),
        ({"loss__task": "regression"}, "--task classification -> regression"),
        ({"run__seed": 5}, "--seed 0 -> 5"),
        ({"data__val_share": 0.5}, "--val-share 0.0 -> 0.5"),
        ({"data__folds": 3}, "--folds 0 -> 3"),
    ],
)
def test_what_may_not_change_is_refused_by_name(go, changes, words):
    go(epochs=1)
    before = (go.folder / "config.toml").read_text()
    with pytest.raises(UsageError, match="a run goes on as it began") as error:
        go(resume=True, epochs=2, **changes)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert (go.folder / "config.toml").read_text() == before


def test_scores_of_another_measure_do_not_compare(go):
    before = go()["step"]
    done = go(resume=True, epochs=4, run__metric="loss")
    assert done["metric"] == "loss" and done["best_step"] > before
    assert [line for line in SAID if "the best weights are chosen anew" in line]
    SAID.clear()
    go(resume=True, epochs=5, run__metric="loss")
    assert not [line for line in SAID if "chosen anew" in line]


def test_scores_on_other_images_do_not_compare(go):
    before = go()["step"]
    SAID.clear()
    assert go(resume=True, epochs=3)["best_step"] <= before
    assert not [line for line in SAID if "chosen anew" in line or line.startswith("validation: ")]
    (go.data / "val" / "dog" / "1.png").unlink()
    done = go(resume=True, epochs=4)
    assert done["best_step"] > before and done["best"]["n"] == 7
    assert "the validation data holds other files than when this was saved" in SAID
    assert [line for line in SAID if "the best weights are chosen anew" in line]
    assert [line for line in SAID if line.startswith("validation: 7 images of 4 classes")]
    SAID.clear()
    go(resume=True, epochs=5)
    assert not [line for line in SAID if "chosen anew" in line or "other files" in line]


def test_an_average_asked_for_later_begins_at_the_trained_weights(go):
    go()
    go(resume=True, epochs=3, run__ema=[0.999], run__ema_warmup=False)
    found = Checkpoints(go.folder / "checkpoints")
    parts = found.newest().parts
    before = runs.storage.read_tensors(go.folder / "checkpoints" / "00000008" / "model.safetensors")
    drift = (parts["average-ema"]["tensors"]["fc.weight"] - before["fc.weight"]).abs().max()
    assert drift < 0.1 * (parts["model"]["fc.weight"] - before["fc.weight"]).abs().max()
    assert torch.isfinite(drift)


def test_classes_that_changed_are_refused_and_more_images_are_said(go):
    go()
    pictures(go.data, count=2, start=16)
    go(resume=True, epochs=3)
    assert any("the data has 72 images, 64 when this was saved" in text for text in SAID)
    (go.data / "train" / "bee").rename(go.data / "train" / "wasp")
    (go.data / "val" / "bee").rename(go.data / "val" / "wasp")
    with pytest.raises(UsageError, match="classes of the data have lost 'bee' and gained 'wasp'"):
        go(resume=True, epochs=4)


def test_other_files_under_the_same_classes_are_said(go):
    go()
    (go.data / "train" / "ant" / "3.png").rename(go.data / "train" / "ant" / "3b.png")
    go(resume=True, epochs=3)
    assert "the data holds other files than when this was saved" in SAID
