"""Whole runs: broken updates, early stop, frozen starts, averages, tasks, teachers, plugins, other ranks."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from train_ranks import run_ranks

from imgzoo.registry import registry
from imgzoo_train.config.settings import Config, nested
from imgzoo_train.loop.nonfinite import NonFiniteError
from imgzoo_train.runs import folder, pushing
from imgzoo_train.runs import run as runs

BASE = {
    "model.name": "test_resnet",
    "data.source": "digits:",
    "data.batch_size": 120,
    "data.input_size": 16,
    "optim.lr": 0.01,
    "run.epochs": 2,
    "run.threads": 1,
    "run.device": "cpu",
    "run.stall": 0.0,
}


def go(folder, resume=False, **changes):
    settings = {key.replace("__", "."): value for key, value in changes.items()}
    config = Config().merged(nested({**BASE, **settings, "run.output": str(folder)}), "test")
    return runs.train(config, resume=resume, quiet=True)


def rows_of(folder, kind):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def break_update(monkeypatch, step, times=1):
    """Let the loss of an update be infinite, as often as told."""
    original, left = runs.assembly.supervised, [times]

    def supervised(loss, state):
        inner = original(loss, state)

        def run(model, batch):
            value = inner(model, batch)
            if state.step == step and model is state.model and left[0]:
                left[0] -= 1
                return value * float("inf")
            return value

        return run

    monkeypatch.setattr(runs.assembly, "supervised", supervised)


def strictly(text):
    """JSON as every other reader has it: without NaN and Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_scores_that_are_no_number_are_null_in_every_file_and_nan_when_read(tmp_path, monkeypatch):
    original = runs.evaluate

    def broken(*args, **options):
        found = original(*args, **options)
        found.metrics["loss"] = math.nan
        return found

    monkeypatch.setattr(runs, "evaluate", broken)
    run = folder.RunFolder(tmp_path / "r")
    go(run.path)
    lines = run.metrics_file.read_text().splitlines()
    scored = [row for row in map(strictly, lines) if row["kind"] == "eval"]
    assert scored and all(row["loss"] is None for row in scored)
    assert strictly((run.path / "summary.json").read_text())["best"]["loss"] is None
    assert strictly((run.best / "config.json").read_text())["metrics"]["loss"] is None
    run.metrics_file.write_text("\n".join(lines).replace("null", "NaN", 1) + "\n")  # as written before
    read = [row["loss"] for row in run.rows() if row["kind"] == "eval"]
    assert read and all(math.isnan(value) for value in read)
    assert "| loss | nan |" in pushing.model_card(run)


def test_a_broken_update_ends_the_run_and_is_on_record(tmp_path, monkeypatch):
    break_update(monkeypatch, 13)
    with pytest.raises(NonFiniteError, match="not finite at update 13"):
        go(tmp_path / "r")
    record = strictly((tmp_path / "r" / "nonfinite.jsonl").read_text())
    assert record["step"] == 13
    assert len(record["indices"]) == 120


def test_rollback_ends_like_a_run_that_left_the_update_out(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_update(patch, 13)
        go(tmp_path / "back", run__nonfinite="rollback", run__save_every=5)
    with monkeypatch.context() as patch:
        break_update(patch, 13)
        go(tmp_path / "skip", run__nonfinite="skip", run__save_every=5)
    one, two = (load_file(tmp_path / name / "best" / "model.safetensors") for name in ("back", "skip"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    steps = [row["step"] for row in rows_of(tmp_path / "back", "train")]
    assert steps == sorted(set(steps))


def test_a_score_that_is_not_a_number_is_never_best_and_blocks_nothing(tmp_path, monkeypatch):
    original, calls = runs.Run.score, []

    def score(self):
        found = original(self)
        calls.append(found)
        found.metrics["top1"] = [float("nan"), 70.0, float("nan"), 60.0, 80.0][len(calls) - 1]
        return found

    monkeypatch.setattr(runs.Run, "score", score)
    summary = go(tmp_path / "r", run__epochs=5)
    assert summary["best"]["top1"] == 80.0
    assert summary["best_step"] == 55


def test_best_survives_a_resume_with_worse_scores(tmp_path, monkeypatch):
    original, calls = runs.Run.score, []

    def score(self):
        found = original(self)
        calls.append(found)
        found.metrics["top1"] = [50.0, 90.0, 40.0, 30.0][len(calls) - 1]
        return found

    monkeypatch.setattr(runs.Run, "score", score)
    go(tmp_path / "r")
    before = (tmp_path / "r" / "best" / "model.safetensors").read_bytes()
    summary = go(tmp_path / "r", resume=True, run__epochs=4)
    assert summary["best_step"] == 22
    assert (tmp_path / "r" / "best" / "model.safetensors").read_bytes() == before
    assert [row["step"] for row in rows_of(tmp_path / "r", "eval")] == [11, 22, 33, 44]


def test_early_stop_ends_after_patience(tmp_path, monkeypatch):
    original, falling = runs.Run.score, iter((60.0, 50.0, 55.0, 70.0))

    def score(self, *args, **kwargs):
        found = original(self, *args, **kwargs)
        found.metrics["top1"] = next(falling)
        return found

    monkeypatch.setattr(runs.Run, "score", score)
    summary = go(tmp_path / "r", run__epochs=9, run__patience=2)
    assert summary["epochs"] == 3


def test_a_backbone_thaws_at_its_epoch(tmp_path):
    go(tmp_path / "r", model__freeze=["backbone"], model__unfreeze_epoch=1, run__epochs=2, run__keep_last=9)
    first, last = (load_file(tmp_path / "r" / "checkpoints" / f"000000{n}" / "model.safetensors") for n in (11, 22))
    torch.manual_seed(0)
    from imgzoo import create_model

    start = create_model("test_resnet", num_classes=10).state_dict()
    same = [key for key in start if torch.equal(first[key], start[key])]
    assert set(start) - set(same) == {"fc.weight", "fc.bias"}
    assert sum(torch.equal(first[key], last[key]) for key in start) < len(start) / 4


def test_averages_are_scored_beside_the_raw_weights(tmp_path):
    go(tmp_path / "r", run__ema=[0.5, 0.9], run__swa_epochs=1, run__epochs=3)
    rows = rows_of(tmp_path / "r", "eval")
    assert {"top1", "top1_ema-0.5", "top1_ema-0.9"} <= rows[0].keys()
    assert "top1_swa" not in rows[0]
    assert "top1_swa" in rows[2]


@pytest.mark.parametrize(
    "changes",
    [
        {"optim__accumulate": 3, "data__mixup": 0.2, "data__cutmix": 1.0, "loss__smoothing": 0.1, "optim__clip": 1.0},
        {"optim__clip": 0.02, "optim__clip_mode": "agc", "optim__name": "sgd", "data__repeats": 2},
        {"data__augment": {"auto_augment": "augmix-m3", "splits": 3}, "loss__name": "jsd", "model__split_bn": 3},
        {"model__lora": 2, "loss__class_weights": "balanced", "data__sizes": [16, 24]},
        {"run__precision": "bf16", "run__channels_last": True, "loss__name": "bce", "run__torchscript": "trace"},
        {"model__grad_checkpointing": True, "optim__layer_decay": 0.7, "model__drop_path_rate": 0.1},
        {"model__name": "test_vit", "optim__name": "muon", "optim__lr": 0.003, "model__img_size": 32},
    ],
)
def test_techniques_run_together_and_the_best_model_loads(tmp_path, changes):
    from imgzoo import create_model

    summary = go(tmp_path / "r", run__epochs=1, **changes)
    assert 0 <= summary["best"]["top1"] <= 100
    model = create_model(f"local-dir:{tmp_path / 'r' / 'best'}", pretrained=True)
    assert model.class_names == list("0123456789")


def test_classes_are_weighed_by_a_file_of_statistics(tmp_path, monkeypatch):
    from imgzoo_train.runs import assembly

    taken = []
    created = assembly.create_loss
    monkeypatch.setattr(
        assembly, "create_loss", lambda name, **options: taken.append(options) or created(name, **options)
    )
    counts = {"pos_counts": [1, *[9] * 9], "num_samples": 82}
    (tmp_path / "s.json").write_text(json.dumps(counts))
    go(tmp_path / "r", run__epochs=1, loss__class_weights=f"balanced:{tmp_path / 's.json'}")
    assert taken[0]["weight"] == pytest.approx([8.2, *[8.2 / 9] * 9])


def test_a_run_through_every_logger_event(tmp_path):
    import imgzoo.registry
    from imgzoo.plugin import hookimpl

    seen = []

    class Follower:
        @hookimpl
        def imgzoo_run_started(self, folder, config):
            seen.append(("started", config.model.name))

        @hookimpl
        def imgzoo_run_logged(self, folder, row):
            seen.append((row["kind"], row["step"]))

        @hookimpl
        def imgzoo_run_ended(self, folder, summary):
            seen.append(("ended", summary["step"]))

    imgzoo.registry.register(Follower(), "follower-of-runs")
    try:
        go(tmp_path / "r", run__epochs=1)
    finally:
        imgzoo.registry.reload()
    assert seen[0] == ("started", "test_resnet")
    assert ("eval", 11) in seen
    assert seen[-1] == ("ended", 11)


class Labels:
    """Digits with two labels each: the digit's parity, and whether it is above four."""

    class_names: ClassVar = ["even", "odd", "high"]
    num_classes, multi_label, name = 3, True, "labels:"

    def __init__(self, split):
        from imgzoo_data import create_dataset

        self.inner = create_dataset("digits:", split)

    def __len__(self):
        return len(self.inner)

    def key(self, index):
        return self.inner.key(index)

    def __getitem__(self, index):
        sample = self.inner[index]
        digit = int(sample.target)
        target = np.array([digit % 2 == 0, digit % 2 == 1, digit > 4], np.float32)
        return sample._replace(target=target)

    def targets(self):
        return np.stack([self[index].target for index in range(len(self))])


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["bce", "asymmetric"])
def test_multi_label_learns(tmp_path, monkeypatch, loss):
    import imgzoo_data

    class Source(Labels, imgzoo_data.Source):
        pass

    monkeypatch.setattr(imgzoo_data, "create_dataset", lambda source, split, **options: Source(split), raising=False)
    monkeypatch.setattr(Labels, "__init__", lambda self, split: setattr(self, "inner", digits(split)))
    summary = go(
        tmp_path / "r",
        loss__task="multilabel",
        loss__name=loss,
        run__epochs=6,
        data__batch_size=60,
        data__augment={"hflip": 0.0, "scale": [0.8, 1.0]},
    )
    assert summary["metric"] == "map"
    assert summary["best"]["map"] >= 97


def test_numbers_of_a_listing_are_predicted(tmp_path):
    """Gray squares and how bright they are: two columns, two outputs, mixed while training."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 96), ("validation", 32)):
        rows = ["path,bright,dark"]
        for index in range(count):
            value = rng.random()
            gray = np.full((16, 16, 3), 255 * value) + rng.normal(0, 4, (16, 16, 3))
            Image.fromarray(gray.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{split}{index}.png")
            rows.append(f"{split}{index}.png,{value:.4f},{1 - value:.4f}")
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    query = "?target_key=bright,dark"
    summary = go(
        tmp_path / "run",
        data__source=f"csv:{tmp_path / 'train.csv'}{query}",
        data__val_source=f"csv:{tmp_path / 'validation.csv'}{query}",
        data__batch_size=16,
        data__mixup=0.2,
        loss__task="regression",
        optim__name="adamw",
        run__epochs=6,
    )
    assert summary["metric"] == "r2" and summary["best"]["r2"] > 80, summary["best"]
    assert load_file(tmp_path / "run" / "best" / "model.safetensors")["fc.weight"].shape[0] == 2


def digits(split):
    from imgzoo_data.sources.digits import DigitsSource

    return DigitsSource("", split)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "run"
    go(folder, run__epochs=4, data__batch_size=60, data__augment={"hflip": 0.0, "scale": [0.8, 1.0]})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["logit", "feature"])
def test_a_student_learns_from_a_teacher(tmp_path, teacher, kind):
    summary = go(
        tmp_path / "r",
        distill__teacher=str(teacher),
        distill__kind=kind,
        distill__weight=0.5,
        run__epochs=4,
        data__batch_size=60,
        data__augment={"hflip": 0.0, "scale": [0.8, 1.0]},
    )
    assert summary["best"]["top1"] >= 80


@pytest.mark.slow
def test_a_token_needs_a_token(tmp_path, teacher):
    from imgzoo.errors import CapabilityError

    with pytest.raises(CapabilityError, match="distillation token"):
        go(tmp_path / "r", distill__teacher=str(teacher), distill__kind="token")


def test_everything_the_plugin_names_can_be_loaded_and_help_needs_no_torch():
    code = (
        "import sys\n"
        "from imgzoo_train import _plugin\n"
        "assert 'torch' not in sys.modules\n"
        "for spec in _plugin.imgzoo_commands():\n"
        "    spec.load().get_help(__import__('click').Context(spec.load()))\n"
        "assert 'torch' not in sys.modules, 'a command imports torch for its help'\n"
        "for spec in [*_plugin.imgzoo_losses(), *_plugin.imgzoo_loggers(), *_plugin.imgzoo_trainers()]:\n"
        "    spec.load()\n"
        "import imgzoo_train\n"
        "for name in imgzoo_train.__all__:\n"
        "    getattr(imgzoo_train, name)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "standard" in registry("trainers").names()


def test_a_stall_prints_the_stack_and_ends_with_an_error():
    code = (
        "import time\n"
        "from imgzoo_train.ranks.world import World\n"
        "from imgzoo_train.ranks.signals import Signals\n"
        "with Signals(World(), stall=1.0) as signals:\n"
        "    signals.poll()\n"
        "    time.sleep(60)\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=55)
    assert done.returncode == 1
    assert "time.sleep" in done.stderr or "line 6" in done.stderr
    assert time.monotonic() - started < 50


COMMON = ["--data", "digits:", "--batch-size", "60", "--input-size", "16", "--device", "cpu", "--quiet"]


@pytest.mark.slow
def test_launch_restarts_a_killed_rank_and_the_run_ends_well(tmp_path):
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "imgzoo_train",
        "launch",
        "-n",
        "2",
        "--max-restarts",
        "1",
        "--log-dir",
        str(tmp_path / "logs"),
        "train",
        "test_resnet",
        *COMMON,
        "--epochs",
        "4",
        "--output",
        str(out),
    ]
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.monotonic() + 200
        while not list((out / "checkpoints").glob("0*/manifest.json")) and time.monotonic() < deadline:
            time.sleep(0.2)
        ranks = subprocess.run(
            ["pgrep", "-f", f"imgzoo_train train .*{out}"], capture_output=True, text=True, check=False
        ).stdout.split()
        victims = [pid for pid in map(int, ranks) if _has_rank(pid)]
        assert len(victims) == 2
        os.kill(victims[1], signal.SIGKILL)
        output = process.communicate(timeout=300)[0]
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0, output
    assert json.loads((out / "summary.json").read_text())["step"] == 44
    assert [row["step"] for row in rows_of(out, "eval")] == [11, 22, 33, 44]


def _has_rank(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return b"\0RANK=" in file.read()
    except OSError:
        return False


@pytest.mark.slow
def test_two_ranks_train_and_validate_as_one(tmp_path):
    out = tmp_path / "run"
    train = [
        "-m",
        "imgzoo_train",
        "train",
        "test_resnet",
        *COMMON,
        "--epochs",
        "1",
        "--strategy",
        "zero1",
        "--ema",
        "0.9",
    ]
    codes, output = run_ranks([*train, "--output", str(out)], 2)
    assert codes == [0, 0], output
    scored = rows_of(out, "eval")[0]
    assert scored["n"] == 360
    validate = ["-m", "imgzoo_train", "validate", str(out), "--data", "digits:", "--device", "cpu", "--json"]
    codes, output = run_ranks(validate, 2)
    assert codes == [0, 0], output
    found = json.loads(output[output.index("{") : output.rindex("}") + 1])
    assert found["n"] == 360
    assert found["top1"] == pytest.approx(json.loads((out / "summary.json").read_text())["best"]["top1"])
