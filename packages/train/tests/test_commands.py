"""The commands, on one tiny run: what they write, what they print, and one sentence for every mistake."""

import csv
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from train_commands import TINY, fails, invoke

from imgzoo.errors import ImgzooError
from imgzoo_train.cli import average, benchmark, clean, predict, push, recommend, sweep, train, validate
from imgzoo_train.cli import launch as launching
from imgzoo_train.files import storage


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    result = invoke(
        train,
        "test_resnet",
        "--data",
        "digits:",
        "--epochs",
        2,
        "--opt",
        "adamw",
        "--ema",
        "0.9",
        "--output",
        folder,
        *TINY,
    )
    assert "best at step" in result.output
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from imgzoo_data import create_dataset

    folder = tmp_path_factory.mktemp("photos")
    source = create_dataset("digits:", "validation")
    for index in range(3):
        Image.fromarray(source[index].data).resize((24, 24)).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes(b"not an image")
    return folder


def test_a_run_folder_holds_everything(run):
    names = {path.name for path in run.iterdir()}
    assert names == {
        "best",
        "checkpoints",
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "report",
        "report.html",
        "summary.csv",
        "summary.json",
    }
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scored = [row for row in rows if row["kind"] == "eval"]
    assert [row["step"] for row in scored] == [11, 22]
    assert {"top1", "top1_ema", "loss", "calibration_error"} <= scored[0].keys()
    table = list(csv.DictReader((run / "summary.csv").read_text().splitlines()))
    assert [row["step"] for row in table] == ["11", "22"]
    assert (run / "checkpoints" / "00000022" / "model.safetensors").is_file()


def test_a_saved_configuration_repeats_the_run_exactly(run, tmp_path):
    from safetensors.torch import load_file

    invoke(train, "--config", run / "config.toml", "--output", tmp_path / "again")
    one, two = (load_file(folder / "best" / "model.safetensors") for folder in (run, tmp_path / "again"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_finished_run_can_be_lengthened(run, tmp_path):
    folder = tmp_path / "long"
    common = ["test_resnet", "--data", "digits:", *TINY, "--output", folder, "--sched", "constant"]
    invoke(train, *common, "--epochs", 1)
    invoke(train, *common, "--epochs", 2, "--resume")
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps[-1] == 22


def test_validate_scores_the_saved_folder_as_training_did(run):
    row = json.loads(invoke(validate, run, "--data", "digits:", "--json").stdout)
    summary = json.loads((run / "summary.json").read_text())
    assert row["n"] == 360
    assert row["top1"] == pytest.approx(summary["best"]["top1"])
    assert row["loss"] == pytest.approx(summary["best"]["loss"], rel=1e-5)


def test_validate_takes_several_and_writes_csv(run, tmp_path):
    out = tmp_path / "scores.csv"
    result = invoke(validate, run, run / "best", "--data", "digits:", "--output", out, "--per-class")
    assert "top1" in result.output
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 2
    assert rows[0]["top1"] == rows[1]["top1"]


def test_predict_names_classes_and_reports_an_unreadable_file(run, photos, tmp_path):
    rows = json.loads(invoke(predict, photos, "--model", run, "--topk", 2, "--json", "--embed", code=1).output)
    assert [row["file"].rpartition("/")[2] for row in rows] == ["0.png", "1.png", "2.png", "broken.png"]
    assert "error" in rows[3]
    for row in rows[:3]:
        assert [answer["class"] in "0123456789" for answer in row["classes"]] == [True, True]
        assert row["classes"][0]["probability"] >= row["classes"][1]["probability"]
        assert len(row["embedding"]) == 96
    for suffix in ("csv", "jsonl", "json"):
        out = tmp_path / f"answers.{suffix}"
        invoke(predict, photos / "0.png", "--model", run / "best", "--output", out)
        assert "0.png" in out.read_text()


def test_predictions_do_not_depend_on_the_batch(run, photos):
    alone = json.loads(invoke(predict, photos, "--model", run, "--json", "--batch-size", 1, code=1).output)
    together = json.loads(invoke(predict, photos, "--model", run, "--json", code=1).output)
    for one, many in zip(alone[:3], together[:3]):
        assert one["classes"][0]["class"] == many["classes"][0]["class"]
        assert one["classes"][0]["probability"] == pytest.approx(many["classes"][0]["probability"], abs=1e-5)


@pytest.mark.parametrize("shares", ["nan,1", "inf,1", "1", "0,0", "a,b"])
def test_shares_that_make_no_mean_are_refused(run, tmp_path, shares):
    assert "--shares" in fails(average, run, run, "--output", tmp_path / "mean", "--shares", shares)
    assert not (tmp_path / "mean").exists()


def test_validate_keeps_no_more_than_the_image(run):
    invoke(validate, run, "--data", "digits:", "--crop-pct", 5, code=2)


def test_average_and_clean_write_models_that_validate(run, tmp_path):
    invoke(average, run, "--last", 2, "--output", tmp_path / "mean")
    invoke(clean, run / "checkpoints" / "00000022", "--average", "ema", "--output", tmp_path / "ema")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "eval"][-1]
    row = json.loads(invoke(validate, tmp_path / "ema", "--data", "digits:", "--json").stdout)
    assert row["top1"] == pytest.approx(last["top1_ema"])
    assert json.loads(invoke(validate, tmp_path / "mean", "--data", "digits:", "--json").stdout)["n"] == 360


def test_the_mean_is_the_mean(tmp_path):
    from imgzoo_train.models.averaging import average_weights

    tables = [
        {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([3.0, 6.0]), "n": torch.tensor(4)},
    ]
    assert average_weights(tables)["w"].tolist() == [2.0, 4.0]
    assert average_weights(tables, [3, 1])["w"].tolist() == [1.5, 3.0]
    assert int(average_weights(tables)["n"]) == 3
    with pytest.raises(ImgzooError, match="different models"):
        average_weights([tables[0], {"w": torch.zeros(3), "n": torch.tensor(1)}])


def test_sweep_runs_every_point_and_goes_on_where_it_was(tmp_path):
    arguments = [
        "test_resnet",
        "--data",
        "digits:",
        *TINY,
        "--epochs",
        1,
        "--output",
        tmp_path / "s",
        "--grid",
        "optim.lr=[0.001, 0.01]",
        "--json",
    ]
    rows = json.loads(invoke(sweep, *arguments).stdout)
    assert {row["optim.lr"] for row in rows} == {0.001, 0.01}
    assert rows[0]["top1"] >= rows[1]["top1"]
    before = (tmp_path / "s" / "trial-000" / "summary.json").stat().st_mtime_ns
    again = json.loads(invoke(sweep, *arguments).stdout)
    assert again == rows
    assert (tmp_path / "s" / "trial-000" / "summary.json").stat().st_mtime_ns == before
    assert "another sweep" in fails(sweep, *arguments[:-2], "optim.lr=[0.5]")


def test_random_draws_repeat_and_stay_inside():
    from imgzoo_train.runs.sweeping import plan

    laws = ["optim.lr=log:1e-4:1e-1", "optim.name=choice:sgd:adamw", "optim.accumulate=int:1:3"]
    points = plan([], laws, 20, seed=5)
    assert points == plan([], laws, 20, seed=5)
    assert points != plan([], laws, 20, seed=6)
    assert all(1e-4 <= point["optim.lr"] <= 1e-1 for point in points)
    assert {point["optim.name"] for point in points} == {"sgd", "adamw"}
    assert {point["optim.accumulate"] for point in points} == {1, 2, 3}


def test_benchmark_measures_and_counts():
    arguments = ["test_resnet", "--img-size", 32, "--batch-size", 2, "--seconds", 0.5, "--json"]  # a median of many
    row = json.loads(invoke(benchmark, *arguments, "--mode", "inference,training,profile").stdout)
    assert row["ms_p50"] > 0
    assert row["train_ms_p50"] > row["ms_p50"]
    assert 0 < row["gmacs"] < 0.1


@pytest.mark.parametrize("precision", ["bf16", "pure-bf16"])
def test_every_mode_of_benchmark_takes_every_precision(precision):
    arguments = ["test_resnet", "--img-size", 32, "--batch-size", 2, "--seconds", 0, "--json", "--device", "cpu"]
    modes = ["--mode", "inference,training,profile", "--precision", precision]
    assert json.loads(invoke(benchmark, *arguments, *modes).stdout)["gmacs"] > 0


def test_a_batch_that_finds_no_memory_on_the_processor_is_halved(monkeypatch):
    from imgzoo_train.models import speed

    made = speed.images_for

    def short(model, settings):
        if settings.batch_size > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return made(model, settings)

    monkeypatch.setattr(speed, "images_for", short)
    arguments = ["test_resnet", "--img-size", 32, "--batch-size", 8, "--seconds", 0, "--json"]
    assert json.loads(invoke(benchmark, *arguments).stdout)["batch_size"] == 2


def test_recommend_takes_the_most_accurate_that_fits(monkeypatch):
    from imgzoo_train.models import recommending
    from imgzoo_train.models.speed import Settings

    rows = [recommending.Candidate(f"m{i}", 60.0 + i, 0.1 * (i + 1), 1.0 + i, 1.0, 224, "MIT") for i in range(30)]
    cost = {row.name: 5 + 20 * row.gmacs + 2 * row.macts for row in rows}

    def measured(name, settings, modes):
        return {"model": name, "ms_p50": cost[name], "ms_p90": cost[name] * 1.02}

    monkeypatch.setattr(recommending, "benchmark", measured)
    best, table = recommending.recommend(50.0, Settings(), rows, watch=lambda text: None)
    wanted = max((row for row in rows if cost[row.name] * 1.02 <= 50), key=lambda row: row.top1)
    assert best["model"] == wanted.name
    assert len(table) <= 12
    nothing, _ = recommending.recommend(1.0, Settings(), rows, watch=lambda text: None)
    assert nothing is None


def test_recommend_runs_on_real_models():
    result = CliRunner().invoke(
        recommend.command,
        ["resnet10t*", "resnet14t*", "--max-ms", "100000", "--measure", "1", "--seconds", "1", "--json"],
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["best"]["model"].startswith("resnet1")


def test_the_card_states_metrics_license_and_data(run):
    invoke(push, run, "--card-only")
    card = (run / "best" / "README.md").read_text()
    for words in ("| top1 |", "License: not stated", "digits:", "optim", "Started from random weights"):
        assert words in card


def test_the_card_says_what_other_libraries_have_no_words_for(run, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(run, own)
    invoke(push, own, "--card-only")
    assert '"timm"' in (own / "best" / "README.md").read_text()
    config = json.loads((own / "best" / "config.json").read_text())
    config["imgzoo"]["model_args"] = {"aa": "avg"}
    (own / "best" / "config.json").write_text(json.dumps(config))
    invoke(push, own, "--card-only")
    card = (own / "best" / "README.md").read_text()
    assert '"timm"' not in card and "timm has no words" in card and "(aa=avg)" in card


def test_pushing_offline_opens_no_connection(run, monkeypatch):
    monkeypatch.setenv("IMGZOO_OFFLINE", "1")
    assert "IMGZOO_OFFLINE" in fails(push, run, "--repo", "me/it")


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path):
    out = tmp_path / "plan"
    text = invoke(train, "test_resnet", "--recipe", "digits", "--dry-run", "--output", out).output
    assert "1,437 images to train on, 360 to validate, 10 classes" in text
    assert "22 steps an epoch, 220 in 10 epochs" in text
    assert not out.exists()


def test_the_learning_rate_finder_answers():
    assert "falls fastest at --lr" in invoke(train, "test_resnet", "--data", "digits:", *TINY, "--find-lr").output


@pytest.mark.slow
def test_the_batch_finder_answers():
    common = ["test_resnet", "--data", "digits:", *TINY]
    assert "the fastest is --batch-size" in invoke(train, *common, "--find-batch").output


def test_slurm_prints_a_batch_file():
    text = invoke(launching, "--slurm", "--nodes", 2, "-n", 4, "train", "resnet18", "--data", "folder:/a b").output
    assert "#SBATCH --signal=TERM@120" in text
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in text
    assert "'folder:/a b'" in text
    assert text.rstrip().endswith("--auto-resume")


HOSTILE = ["$(touch x)", "`id`", "$HOME/a b", "'; id #", "--rdzv-id=@JOB", "a\nb", "é"]


def test_slurm_quotes_every_argument():
    import shlex

    text = invoke(launching, "--slurm", "--log-dir", "$HOME/logs", "train", *HOSTILE).output
    line = text[text.index("srun ") :]
    words = shlex.split(line)
    assert words[-len(HOSTILE) - 2 :] == ["train", *HOSTILE, "--auto-resume"]
    assert words[0] == "srun" and words[1] == "python" and "--log-dir=$HOME/logs" in words
    bare = re.sub(r"'[^']*'", "", line)
    assert set(re.findall(r"\$\w+", bare)) == {"$HEAD", "$SLURM_JOB_ID"} and "`" not in bare and "$(" not in bare
    for option in ("--partition", "--time"):
        assert "no word that Slurm takes" in fails(launching, "--slurm", option, "a\n#SBATCH --x", "train", "m")


def test_slurm_says_words_that_no_terminal_shows_so_that_bash_reads_them_as_they_are(tmp_path):
    words = ["run\x1b[31m'\\", "b\udce9e", "\u202e\x9b"]
    text = invoke(launching, "--slurm", "train", *words).output
    assert all(char.isprintable() or char == "\n" for char in text)
    line = text[text.index("srun ") :].replace("srun ", "printf '%s\\0' ")
    said = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout.split(b"\0")
    assert said[-5:-2] == [os.fsencode(word) for word in words]


def test_cells_keep_names_apart_and_run_nothing():
    assert storage.safe_cell("a\x1b[1m") == "a\\x1b[1m" and storage.safe_cell("b\udce9") == "b\\xe9"
    assert storage.safe_cell("=1+1") == "'=1+1" and storage.safe_cell("plain é") == "plain é"


def folder_of(root, classes, count=3):
    for part, blue in (("train", 90), ("validation", 190)):
        for number, name in enumerate(classes):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (20, 20), (index * 40, 9 + number, blue)).save(root / part / name / f"{index}.png")
    return f"folder:{root}"


MISTAKES = {
    "no model": ([], "no model given"),
    "unknown model": (["resnet999"], "resnet999"),
    "unknown source": (["test_resnet", "--data", "nowhere:"], "nowhere"),
    "missing folder": (["test_resnet", "--data", "folder:/does/not/exist"], "does not exist"),
    "unknown optimizer": (["test_resnet", "--opt", "adamx"], "adamx"),
    "unknown schedule": (["test_resnet", "--sched", "cosinus"], "cosinus"),
    "unknown loss": (["test_resnet", "--loss", "crossentropy"], "crossentropy"),
    "unknown recipe": (["test_resnet", "--recipe", "magic"], "magic"),
    "unknown logger": (["test_resnet", "--logger", "paper"], "paper"),
    "unknown setting": (["test_resnet", "--set", "optim.lrr=1"], "optim.lrr"),
    "unknown device": (["test_resnet", "--device", "quantum"], "quantum"),
    "wrong task": (["test_resnet", "--task", "multilabel"], "--task multilabel does not fit"),
    "wrong metric": (["test_resnet", "--metric", "beauty"], "beauty"),
    "unknown pretrained": (["test_resnet", "--pretrained", "nowhere"], "nowhere"),
    "freeze nothing": (["test_resnet", "--freeze", "xyz"], "matches no parameter"),
    "unwritable output": (["test_resnet", "--output", "/proc/nothing/run"], "cannot write"),
    "missing config": (["test_resnet", "--config", "/does/not/exist.toml"], "cannot read the configuration"),
    "negative rate": (["test_resnet", "--lr", "-1"], "--lr must be at least 0, not -1.0"),
    "no average": (["test_resnet", "--ema", "1.5"], "--ema must be at least 0 and below 1, not 1.5"),
    "negative rate set": (["test_resnet", "--set", "optim.lr=-1"], "'optim.lr' in --set must be at least 0"),
    "resume nothing": (["test_resnet", "--resume"], "holds no run to resume"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_in_one_sentence(tmp_path, name):
    arguments, words = MISTAKES[name]
    defaults = ["--data", "digits:", "--epochs", "1", "--output", str(tmp_path / "run"), *TINY]
    assert words in fails(train, *defaults, *arguments)


def test_a_run_needs_data():
    assert "no data given" in fails(train, "test_resnet", *TINY)


def test_an_existing_run_is_not_overwritten(run):
    assert "already holds a run" in fails(
        train, "test_resnet", "--data", "digits:", "--epochs", 1, *TINY, "--output", run
    )


def test_odd_data_trains_or_says_why(tmp_path):
    common = ["--epochs", 1, "--input-size", 16, "--device", "cpu", "--threads", 1]
    one = folder_of(tmp_path / "one", ["only"])
    assert "single class 'only'" in fails(train, "test_resnet", "--data", one, *common, "--output", tmp_path / "r1")
    small = folder_of(tmp_path / "small", ["a", "b"])
    invoke(train, "test_resnet", "--data", small, *common, "--batch-size", 64, "--output", tmp_path / "r2")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no images" in fails(train, "test_resnet", "--data", f"folder:{empty}", *common, "--output", tmp_path / "r3")


class TextOnly(HTMLParser):
    """Collects tags and attributes."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs


def test_hostile_class_names_stay_text_everywhere(tmp_path):
    names = ["=cmd()|x", "<img src=x onerror=alert(1)>".replace("/", ""), "\x1b]8;;evil\x07", "a,b\"c'"]
    data = folder_of(tmp_path / "data", names)
    out = tmp_path / "run"
    common = ["--epochs", 1, "--input-size", 16, "--batch-size", 4, "--device", "cpu", "--threads", 1]
    result = invoke(train, "test_resnet", "--data", data, *common, "--output", out)
    assert "\x1b" not in result.output
    page = (out / "report.html").read_text()
    parser = TextOnly()
    parser.feed(page)
    assert not parser.tags & {"iframe", "link", "object"}
    assert page.count("<script") <= 4, "its own two, its data, and the packed library"
    assert not any(name.startswith("on") for name, _ in parser.attributes)
    sources = [value for name, value in parser.attributes if name in ("src", "href")]
    assert all(value.startswith(("data:image/", "#part-")) for value in sources)
    assert "default-src 'none'" in page and "script-src 'sha256-" in page and "\x1b" not in page
    photo = next((tmp_path / "data" / "train" / names[0]).iterdir())
    table = tmp_path / "answers.csv"
    invoke(predict, photo, "--model", out, "--output", table, "--topk", 4)
    cells = next(csv.reader(table.read_text().splitlines()[1:]))
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    printed = invoke(predict, photo, "--model", out, "--topk", 4).output
    assert "\x1b" not in printed
    invoke(push, out, "--card-only")
    card = (out / "best" / "README.md").read_text()
    assert "<img" not in card
    assert "\x1b" not in card


def test_an_attention_pool_is_counted():
    from imgzoo import create_model
    from imgzoo_train.models.speed import Settings, profile

    model = create_model("test_vit", global_pool="map")
    assert profile(model, Settings())["gmacs"] > profile(create_model("test_vit"), Settings())["gmacs"]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_several_go_on_past_one_that_fails(tmp_path, monkeypatch):
    from imgzoo_train.models import speed
    from imgzoo_train.runs.run import Run

    def broken(model, settings):
        raise AssertionError("no such operator\nand more")

    monkeypatch.setitem(speed.MODES, "profile", broken)
    rows = json.loads(invoke(benchmark, "test_resnet", "test_vit", "--mode", "profile", "--json", code=1).stdout)
    assert [row["error"] for row in rows] == ["AssertionError: no such operator"] * 2
    original = Run.go

    def go(self, resume):
        if self.config.optim.lr == 0.5:
            raise RuntimeError("a fault of its own")
        return original(self, resume)

    monkeypatch.setattr(Run, "go", go)
    common = ["test_resnet", "--data", "digits:", *TINY, "--epochs", 1, "--output", tmp_path / "s", "--json"]
    rows = json.loads(invoke(sweep, *common, "--grid", "optim.lr=[0.5, 0.01, -1]", code=1).stdout)
    assert rows[0]["optim.lr"] == 0.01 and rows[0]["top1"] > 0
    errors = {row["optim.lr"]: row["error"] for row in rows[1:]}
    assert errors[0.5] == "RuntimeError: a fault of its own"
    assert "at least 0" in errors[-1]


def test_recommend_counts_parameters_in_millions():
    from imgzoo_train.models.recommending import candidates

    few = candidates(["resnet*"], max_params=12)
    assert few and all(row.params <= 12e6 for row in few)
    assert len(candidates(["resnet*"])) > len(few)


def test_a_fixed_batch_is_the_one_asked_for(tmp_path):
    from imgzoo_train.cli import export

    arguments = ["test_resnet", "--pretrained", "false", "--format", "torchscript", "--fixed-batch", 3]
    report = json.loads(invoke(export, *arguments, "--output", tmp_path / "m.ts", "--json").stdout)
    assert list(report["batches"]) == ["3"] and not report["dynamic_batch"]


def test_a_network_trains_on_oblong_images(tmp_path):
    out = tmp_path / "run"
    common = ["--data", "digits:", "--batch-size", 120, "--epochs", 1, "--device", "cpu", "--threads", 1]
    invoke(train, "test_resnet", *common, "--input-size", "16,24", "--output", out)
    assert json.loads((out / "best" / "config.json").read_text())["pretrained_cfg"]["input_size"] == [3, 16, 24]
    assert json.loads(invoke(validate, out, "--data", "digits:", "--json").stdout)["n"] == 360
    text = invoke(train, "test_vit", *common, "--img-size", "32,48", "--dry-run", "--output", tmp_path / "v").output
    assert "3x32x48" in text
    assert "height and width" in fails(train, "test_resnet", *common, "--input-size", "1,2,3")


def test_launch_says_one_sentence_and_ends_as_the_run_did(tmp_path):
    import subprocess
    import sys

    command = [sys.executable, "-m", "imgzoo_train", "launch", "-n", "2", "train", "test_resnet", "--data", "digits:"]
    done = subprocess.run(
        [*command, "--metric", "beauty", "--device", "cpu", "--output", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "--metric beauty is not measured" in done.stderr, done.stderr
    assert not done.stdout
