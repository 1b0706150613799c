"""What goes wrong before or after training costs none of it, and is said in one sentence."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from test_changed_resume import BASE, SAID, go, pictures  # noqa: F401
from train_commands import fails, invoke

from imgzoo.errors import DataError, UsageError
from imgzoo_train import Checkpoints
from imgzoo_train.cli import benchmark, clean, export, predict
from imgzoo_train.cli import validate as score
from imgzoo_train.config.settings import Config, nested
from imgzoo_train.files import storage
from imgzoo_train.files.storage import StorageError, read_tensors
from imgzoo_train.models.averaging import load_weights
from imgzoo_train.runs import checks, loggers, planning
from imgzoo_train.runs import run as runs
from imgzoo_train.scores.validate import Settings, validate


def damage(folder, split="val"):
    path = next(iter(sorted((folder / split / "bee").iterdir())))
    path.write_bytes(path.read_bytes()[:60])


def test_a_bad_file_in_validation_costs_no_epoch(go):  # noqa: F811
    damage(go.data)
    with pytest.raises(DataError, match="--max-bad-val leaves such samples out and counts them"):
        go()
    found = Checkpoints(go.folder / "checkpoints").newest()
    assert found.parts["progress"]["step"] == 4
    summary = go(resume=True, data__max_bad_val=1)
    assert summary["step"] == 8
    assert summary["best"]["n"] == 7
    assert summary["best"]["left_out"] == 1
    row, _ = validate(str(go.folder), Settings(f"folder:{go.data}", max_bad=1))
    assert (row["n"], row["left_out"]) == (7, 1)
    with pytest.raises(DataError, match="--max-bad leaves such samples out"):
        validate(str(go.folder), Settings(f"folder:{go.data}"))


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["append", "write_summary"])
def test_a_full_disk_ends_no_run(go, monkeypatch, where):  # noqa: F811
    monkeypatch.setattr(runs.RunFolder, where, full)
    assert go()["step"] == 8
    assert any(text.startswith("no space left, the run goes on without") for text in SAID)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_best_model_that_found_no_space_is_said_at_the_end(go, monkeypatch, epochs):  # noqa: F811
    replace, calls = runs.RunFolder.replace_best, []

    def sometimes(folder, write):
        calls.append(write)
        return replace(folder, write) if len(calls) < epochs else full()

    monkeypatch.setattr(runs.RunFolder, "replace_best", sometimes)
    monkeypatch.setattr(runs, "judge", lambda best, step, name, results: (better_at(best, step, results), True))
    held = "nothing" if epochs == 1 else "that of step 4"
    with pytest.raises(StorageError, match=f"of step {4 * epochs}: best/ holds {held}; `imgzoo clean .*{4 * epochs} "):
        go(epochs=epochs)
    assert (go.folder / "report.html").is_file() and not (go.folder / ".best-new").exists()


def better_at(best, step, results):
    """Each epoch is better than the one before."""
    best.setdefault("scores", {})[str(step)] = float(step)
    best |= {"step": step, "variant": "", "oriented": float(step), "metrics": results[""].metrics}
    return ""


def test_weights_that_find_no_space_leave_the_old_ones(go, monkeypatch, tmp_path):  # noqa: F811
    go(epochs=1)
    output = tmp_path / "weights.safetensors"
    invoke(clean, go.folder, "--output", output)
    before = output.read_bytes()
    monkeypatch.setattr(storage._Writer, "write", full)
    with pytest.raises(OSError, match="No space left"):
        invoke(clean, go.folder, "--output", output)
    assert output.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "weights" in path.name] == [output.name]


def test_rows_that_find_no_space_are_printed(go, monkeypatch, tmp_path):  # noqa: F811
    go(epochs=1)
    monkeypatch.setattr(storage, "write_file", full)
    image = next((go.data / "val" / "bee").iterdir())
    for module, arguments in (
        (predict, [image, "--model", go.folder]),
        (score, [go.folder, "--data", f"folder:{go.data}"]),
        (benchmark, [go.folder, "--seconds", 0]),
    ):
        for suffix in ("csv", "json", "jsonl"):
            path = tmp_path / f"rows.{suffix}"
            done = CliRunner().invoke(module.command, [str(part) for part in (*arguments, "--output", path)])
            assert isinstance(done.exception, StorageError) and "No space left" in str(done.exception)
            assert ("bee" in done.stdout or "top1" in done.stdout or "ms_p50" in done.stdout) and not path.exists()


def test_a_quarantine_that_finds_no_space_ends_no_run(go, monkeypatch):  # noqa: F811
    from imgzoo_data import loader

    path = go.data / "train" / "bee" / "0.png"
    path.write_bytes(path.read_bytes()[:60])
    monkeypatch.setattr(loader.json, "dumps", full)
    assert loader.Quarantine(go.folder / "q.jsonl", 9, "skip").take((loader.Fault("a", 0, "", "bad"),)) is None


def test_a_row_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    storage.append_row(path, {"a": 1})
    opened = type(path).open

    class Half:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            self.file.write(data[:3])
            full()

    monkeypatch.setattr(type(path), "open", lambda self, *mode, **options: Half(opened(self, *mode, **options)))
    with pytest.raises(OSError, match="No space"):
        storage.append_row(path, {"b": 2})
    monkeypatch.undo()
    assert path.read_text() == '{"a": 1}\n'


NO_ROWS = {
    "no JSON": b"\0\0\0", "no UTF-8": b'{"kind": "train", "step": 2, "x": "\xff"}', "a list": b"[1]", "a number": b"5",
    "too deep": b"[" * 100_000, "digits": b'{"kind": "eval", "step": ' + b"9" * 5000 + b"}",
    "too large": b'{"kind": "eval", "step": ' + b"9" * 400 + b"}", "no step": b'{"kind": "eval"}',
    "a step of text": b'{"kind": "eval", "step": "2"}', "no kind": b'{"step": 2}', "no epoch": b'{"kind": "eval", '
    b'"step": 2, "epoch": null}', "a table": b'{"kind": "eval", "step": 2, "top1": {}}',
    "true": b'{"kind": "eval", "step": 2, "top1": true}',
}  # fmt: skip


@pytest.mark.parametrize("line", NO_ROWS.values(), ids=NO_ROWS)
def test_a_damaged_line_costs_no_row_and_is_kept(tmp_path, line):
    folder = runs.RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.append({"kind": "eval", "step": step, "epoch": float(step), "loss": None})
    first, *rest = folder.metrics_file.read_bytes().splitlines(keepends=True)
    whole = first + line + b"\n" + b"".join(rest)
    folder.metrics_file.write_bytes(whole + b'{"kind": "eval", "st')  # the last was cut short by a crash
    assert [row["step"] for row in folder.rows()] == [1, 2, 3]
    assert folder.rewind(2, {"eval": True}) == 1
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes().startswith(whole)
    assert [row["step"] for row in folder.rows()] == [1, 2]
    assert folder.rewind(2, {"eval": True}) == 0


@pytest.mark.parametrize("number", sorted(runs.storage.DISK_FULL))
def test_a_full_disk_is_known_through_safetensors_too(number):
    from safetensors import SafetensorError

    said = SafetensorError(f"Error: I/O error: {os.strerror(number)} (os error {number})")
    assert runs.storage.is_disk_full(said)
    assert not runs.storage.is_disk_full(SafetensorError("Error: I/O error: Is a directory (os error 21)"))


def test_a_limit_on_the_size_of_files_ends_a_run_at_its_end(go):  # noqa: F811
    """As `ulimit -f` sets it: no checkpoint and no best model fits, and the scores are there."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(StorageError, match="no space was left for the best model"):
            go()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (go.folder / "summary.csv").read_text().count("\n") == 3


def test_a_logger_that_fails_is_left_out(go, monkeypatch):  # noqa: F811
    class Broken:
        rows = 0

        def __init__(self, folder, config):
            pass

        def log(self, row):
            Broken.rows += 1
            raise ConnectionError("no network")

        def end(self, summary):
            raise AssertionError("it was left out")

    monkeypatch.setattr(loggers, "TensorBoard", Broken)
    assert go(run__loggers=["tensorboard"])["step"] == 8
    assert Broken.rows == 1
    assert any("logger Broken failed (ConnectionError: no network)" in text for text in SAID)


def test_a_report_that_fails_is_said(go, monkeypatch):  # noqa: F811
    def broken(*arguments):
        raise UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")

    monkeypatch.setattr("imgzoo_train.reporting.page.write_report", broken)
    assert go()["step"] == 8
    assert any(text.startswith("no report:") for text in SAID)


def test_names_that_are_no_utf8_end_in_a_report(tmp_path, go):  # noqa: F811
    for split in ("train", "val"):
        (go.data / split / "bee").rename(go.data / split / "b\udce9e")
    go()
    assert "b\\xe9e" in (go.folder / "report.html").read_text()
    assert json.loads((go.folder / "best" / "config.json").read_text())["label_names"][1] == "b\\xe9e"


WRONG = {
    "run.ema": [1.5],
    "loss.smoothing": 2.0,
    "optim.layer_decay": 3.0,
    "data.crop_pct": 3.0,
    "optim.momentum": 5.0,
    "schedule.warmup_epochs": 30.0,
    "run.swa_epochs": 30,
    "distill.kind": "logit",
    "distill.weight": 0.3,
    "run.epochs": 0,
    "run.metric": "acc",
    "run.loggers": ["paper"],
    "run.loggers ": ["trackio"],  # which the test hides
    "loss.name": "crossentropy",
    "loss.name ": "mse",
    "run.threads": 100_000,
    "data.augment.scale": [2.0, 3.0],
    "data.sequence": [10**9],
    "optim.options.betas": 5,
    "optim.options.momentum": 5,
    "optim.name": "adamx",
    "run.device": "quantum",
    "run.output": "/proc/nothing/run",
    "run.trainer": "nobody",
    "model.num_classes": 9,
    "loss.task": "multilabel",
    "data.mix_prob": 2.0,
    "distill.temperature": 0.0,
    "model.drop_rate": 1.0,
    "data.augment.hflip": "often",
    "data.augment.color_jitter": -4.0,
    "data.augment.decode": "quick",
    "data.augment.hflop": 0.5,
}


@pytest.mark.parametrize("way", ["dry-run", "train"])
@pytest.mark.parametrize("key", WRONG)
def test_what_cannot_work_is_refused_before_the_first_batch(tmp_path, monkeypatch, key, way):
    from imgzoo.errors import ImgzooError

    settings = {**BASE, "data.source": "digits:", "run.output": str(tmp_path / "run"), key.strip(): WRONG[key]}
    monkeypatch.setattr(runs, "fit", lambda *arguments, **options: pytest.fail("it trained"))
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ImgzooError) as error:
        config = Config().merged(nested(settings), "test")
        planning.dry_run(config) if way == "dry-run" else runs.train(config, quiet=True)
    assert "\n" not in str(error.value)
    if key == "data.augment.color_jitter":
        assert str(error.value).startswith("--color-jitter must be")
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_there_is_seen_by_the_dry_run(go, tmp_path):  # noqa: F811
    go(epochs=1)
    settings = {**BASE, "data.source": f"folder:{go.data}", "run.output": str(go.folder)}
    with pytest.raises(UsageError, match="already holds a run"):
        planning.dry_run(Config().merged(nested(settings), "test"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"data__batch_size": 1, "data__input_size": 16},
            "--batch-size 1 at this size leaves: use a larger --batch-size",
        ),
        ({"data__batch_size": 63, "data__input_size": 16, "data__last_batch": True}, "leave --last-batch out"),
        ({"model__name": "test_vit", "data__input_size": 50}, "cannot take images of 50x50"),
        ({"model__name": "swin_tiny_patch4_window7_224", "data__input_size": 57}, "cannot take images of 57x57"),
    ],
)
def test_sizes_that_cannot_work_are_one_sentence(go, changes, words):  # noqa: F811
    with pytest.raises(UsageError) as error:
        go(epochs=1, **changes)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_milestones_and_the_best_stay(go, monkeypatch):  # noqa: F811
    original, scores = runs.Run.score, iter((50.0, 90.0, 40.0, 30.0, 20.0))

    def score(self):
        found = original(self)
        found.metrics["top1"] = next(scores)
        return found

    monkeypatch.setattr(runs.Run, "score", score)
    go(epochs=5, run__milestone=3, run__save_every=5, run__keep_last=1)
    assert Checkpoints(go.folder / "checkpoints").steps() == [8, 12, 20]  # the best, the milestone, the last


def test_the_average_of_a_run_folder_is_the_average(go):  # noqa: F811
    go(run__ema=[0.5])
    plain, average = load_weights(go.folder / "checkpoints" / "00000008"), load_weights(go.folder, "ema")
    wanted = load_weights(go.folder / "checkpoints" / "00000008", "ema")
    assert (average.weights["fc.weight"] == wanted.weights["fc.weight"]).all()
    assert (average.weights["fc.weight"] != plain.weights["fc.weight"]).any()
    with pytest.raises(UsageError, match="has no average 'swa'; it has ema"):
        load_weights(go.folder, "swa")
    with pytest.raises(UsageError, match="--average"):
        load_weights(go.folder / "best", "ema")


def test_updates_that_were_left_out_are_counted(go, monkeypatch):  # noqa: F811
    original = runs.assembly.supervised

    def supervised(loss, state):
        inner = original(loss, state)
        return lambda model, batch: inner(model, batch) * (float("nan") if state.step < 4 else 1.0)

    monkeypatch.setattr(runs.assembly, "supervised", supervised)
    go(run__nonfinite="skip", run__log_every=2)
    rows = [json.loads(line) for line in (go.folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["kind"] == "train"]
    assert [row.get("left_out") for row in rows] == [2, 2, None, None]
    assert "loss" not in rows[0] and rows[0]["images_per_second"] > 0
    assert rows[2]["loss"] > 0


def test_every_advice_is_an_option_of_that_command(go):  # noqa: F811
    path = go.data / "train" / "bee" / "0.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match="--max-bad replaces such samples by others"):
        go()
    assert go(resume=True, data__max_bad=1)["step"] == 8


def test_the_last_batch_and_the_first_rate_are_said_and_can_be_chosen(go):  # noqa: F811
    (go.data / "train" / "bee" / "0.png").unlink()
    settings = {**BASE, "data.source": f"folder:{go.data}", "run.output": str(go.folder),
                "schedule.warmup_epochs": 1.0, "run.epochs": 2}  # fmt: skip
    text = planning.dry_run(Config().merged(nested(settings), "test"))
    go(epochs=2, schedule__warmup_epochs=1.0)
    for said in (text, "\n".join(SAID)):
        assert "left out: 15 images an epoch" in said and "--last-batch takes them" in said
        assert "the first update has learning rate 0; --set schedule.options.warmup_start=" in said
    shutil.rmtree(go.folder)
    SAID.clear()
    assert go(epochs=1, data__last_batch=True)["step"] == 4
    rows = [json.loads(line) for line in (go.folder / "metrics.jsonl").read_text().splitlines()]
    assert sum(row.get("images", 0) for row in rows) == 63
    assert not [line for line in SAID if line.startswith(("left out", "warm-up"))]
    assert "repeated: 63 images fill a batch of 64" in planning.dry_run(
        Config().merged(nested({**settings, "data.batch_size": 64, "run.output": str(go.folder / "other")}), "test")
    )


def test_low_precision_is_advised_only_where_it_is_computed(monkeypatch):
    from imgzoo_train.reporting import page
    from imgzoo_train.reporting.reading import times_of

    row = {"kind": "train", "images": 100, "images_per_second": 10.0, "data_wait": 0.0}
    for computes in (True, False):
        monkeypatch.setattr(page, "computes_bfloat16", lambda answer=computes: answer)
        assert ("bf16" in page.verdict(times_of([row]))) == computes


def test_the_images_left_out_are_counted_over_all_ranks():
    config = Config().merged(nested({"data.batch_size": 16}), "test")
    told = {ranks: checks.worth_saying(config, 40, ranks) for ranks in (1, 2, 4)}
    assert told[1][0].startswith("left out: 8 images") and told[2][0].startswith("left out: 8 images")
    assert told[4][0].startswith("repeated: 40 images fill a batch of 64")
    assert checks.worth_saying(config, 48, 2)[0].startswith("left out: 16 images")


def test_answers_that_are_no_number_are_counted_and_fail(go, tmp_path):  # noqa: F811
    go(epochs=1)
    file = go.folder / "best" / "model.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in read_tensors(file).items()}, file)
    shown = invoke(score, go.folder, "--data", f"folder:{go.data}", "--json", code=1)
    row = json.loads(shown.stdout)
    assert row["nonfinite"] == row["n"] == 8 and row["loss"] is None
    assert "the outputs of 8 of 8 images are no finite number" in shown.output
    image = next((go.data / "val" / "bee").iterdir())
    rows = json.loads(invoke(predict, image, "--model", go.folder, "--json", code=1).stdout)
    assert "no finite number" in rows[0]["error"]
    assert "no finite number" in fails(export, go.folder, "--format", "torchscript", "--output", tmp_path / "m.pt")


def test_an_evaluation_with_answers_that_are_no_number_is_said_while_training(go, monkeypatch):  # noqa: F811
    original = runs.evaluate

    def evaluate(model, *args, **kwargs):
        first = torch.tensor(0)
        with model.register_forward_hook(lambda module, inputs, output: output.index_fill(0, first, math.nan)):
            return original(model, *args, **kwargs)

    monkeypatch.setattr(runs, "evaluate", evaluate)
    go(epochs=1)
    assert any("with raw weights the outputs of 1 validation images are no finite number" in line for line in SAID)


def test_a_run_folder_belongs_to_one_process(go, monkeypatch):  # noqa: F811
    monkeypatch.setattr(storage.held.__wrapped__, "__defaults__", (0.3,))
    go.folder.mkdir()
    with storage.held(go.folder), pytest.raises(UsageError, match=r"another process writes to .*/run"):
        go()
    assert not any(go.folder.iterdir())
    go(epochs=1)
    child = "import sys, time; from imgzoo_train.files.storage import held; from pathlib import Path\n"
    child += "with held(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", child, go.folder], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"in\n"
        before = (go.folder / "metrics.jsonl").read_text()
        with pytest.raises(UsageError, match="choose another --output"):
            go(resume=True)
        process.kill()
    assert (go.folder / "metrics.jsonl").read_text() == before
    assert go(resume=True)["step"] == 8  # who died holds nothing


def test_what_a_killed_run_left_half_written_goes_when_it_goes_on(go):  # noqa: F811
    go()
    left = [".config.toml.0123.part", "checkpoints/.latest.0123.part", "checkpoints/.partial-00000003/state.json",
            "checkpoints/.trash-00000001/state.json", ".best-new/model.safetensors", ".trash-best/config.json",
            "report/.answers.0123.part"]  # fmt: skip
    before = {path for path in go.folder.rglob("*") if not path.name.endswith(".part")}
    for name in left:
        (go.folder / name).parent.mkdir(exist_ok=True)
        (go.folder / name).write_text("half")
    assert go(resume=True)["step"] == 8
    assert set(go.folder.rglob("*")) == before


def test_a_file_system_without_locks_lets_anyone_in(tmp_path, monkeypatch):
    monkeypatch.setattr(storage.fcntl, "flock", lambda *arguments: full_of(errno.ENOLCK))
    with storage.held(tmp_path):
        pass
    monkeypatch.setattr(storage.fcntl, "flock", lambda *arguments: full_of(errno.EIO))
    with pytest.raises(OSError, match="Input/output"), storage.held(tmp_path):
        pass


def full_of(code):
    raise OSError(code, os.strerror(code))


def launched(folder, *arguments):
    """(exit code, what it said in sentences, all it said) of two ranks that train."""
    command = [
        sys.executable,
        "-m",
        "imgzoo",
        "launch",
        "-n",
        "2",
        "train",
        *map(str, arguments),
        "--output",
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("imgzoo: ")], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "advice", "flag"),
    [
        ("val", "--max-bad-val leaves such samples out and counts them", "--max-bad-val"),
        ("train", "--max-bad replaces such samples by others", "--max-bad"),
    ],
)
def test_a_bad_image_on_one_of_two_ranks_is_one_sentence(go, where, advice, flag):  # noqa: F811
    damage(go.data, where)  # in validation the second rank's: it evaluates every other image
    settings = ("test_resnet", "--epochs", 2, "--batch-size", 8, "--input-size", 16, "--device", "cpu",
                "--data", f"folder:{go.data}")  # fmt: skip
    for again in (settings, ("--resume",)):
        code, said, _ = launched(go.folder, *again)
        assert (code, len(said)) == (2, 1), said
        assert advice in said[0]
    found = Checkpoints(go.folder / "checkpoints").newest()
    saved = found.parts["progress"]["step"] if found else 0
    assert saved == (4 if where == "val" else 0)
    code, said, text = launched(go.folder, "--resume", flag, 1)
    assert code == 0 and f"going on from step {saved}" in text, text
    summary = json.loads((go.folder / "summary.json").read_text())
    assert (summary["step"], summary["best"]["n"]) == (8, 7 if where == "val" else 8)
    if where == "val":
        assert summary["best"]["left_out"] == 1
    else:
        rows = (go.folder / "quarantine.jsonl").read_text().splitlines()
        assert [json.loads(row)["path"] for row in rows] == ["bee/0.png"]
    whole = go.folder.with_name("whole")
    assert launched(whole, *settings, flag, 1)[0] == 0
    ends = [Checkpoints(folder / "checkpoints").newest().parts["model"] for folder in (go.folder, whole)]
    assert all(torch.equal(*pair) for pair in zip(ends[0].values(), ends[1].values(), strict=True))


@pytest.mark.slow
def test_more_bad_images_than_allowed_are_one_sentence_on_two_ranks(go):  # noqa: F811
    for path in (go.data / "train").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    code, said, _ = launched(go.folder, "test_resnet", "--epochs", 1, "--batch-size", 8, "--input-size", 16,
                             "--device", "cpu", "--data", f"folder:{go.data}", "--max-bad", 2)  # fmt: skip
    assert code == 2 and said and all("bad samples exceed the budget of 2" in line for line in said), said
