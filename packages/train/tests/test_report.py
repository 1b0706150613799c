"""The page of a run: what it says, what it holds, what it lacks, how large it may be, and two runs compared."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape

import chromium
import numpy as np
import pytest
import torch
from test_changed_resume import SAID, go  # noqa: F401
from train_commands import fails, invoke

from imgzoo import page as shell
from imgzoo_train.cli import report as command
from imgzoo_train.models.answers import Alignment
from imgzoo_train.reporting import comparing, drawing, page, reading, record
from imgzoo_train.reporting.figures import Figure, Line, line
from imgzoo_train.reporting.record import evaluation
from imgzoo_train.scores.evaluation import evaluate
from imgzoo_train.terminal.progress import SECONDS, Bar

BAD = ["</script><script>alert(1)</script>", "<!--<script>", "\x1b]8;;evil\x07", "a\u202eb", '" onload="x', "x" * 500]
BOUND = 2**21
"""Most bytes of a page beside its chart library: 2 MiB."""


def shown(path) -> str:
    """The words of a page."""
    body = re.sub(r"<script.*?</script>|<style.*?</style>", "", path.read_text(), flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", body)))


def written(folder) -> str:
    invoke(command, folder)
    return shown(folder / "report.html")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs on four classes."""
    from test_changed_resume import BASE, pictures

    from imgzoo_train.config.settings import Config, nested
    from imgzoo_train.runs import run as runs

    root = tmp_path_factory.mktemp("finished")
    settings = {**BASE, "data.source": pictures(root / "data"), "run.output": str(root / "run"), "run.ema": [0.9],
                "data.mixup": 0.2, "run.log_every": 1}  # fmt: skip
    runs.train(Config().merged(nested(settings), "test"), quiet=True)
    return root / "run"


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "best"))


def test_the_page_of_a_run_says_what_how_good_how_long_and_what_bound_it(run):
    words = shown(run / "report.html")
    best = json.loads((run / "summary.json").read_text())["best"]
    assert re.search(rf"test_resnet on folder:\S+: {best['top1']:.2f} % top-1 accuracy after 2 epochs in [\d.]+ s\. "
                     r"(Data|Evaluation|Compute) bounded it: ", words)  # fmt: skip
    parts = ("Curves", "Smoothing", "Loss", "Score: top-1 accuracy", "Largest confusions", "4 classes", "Reliability",
             f"Expected calibration error {best['calibration_error']:.4g}", "Classes class images recall",
             "Worst mistakes", "What the network saw", "Data train images 64", "To repeat this run",
             "config.toml")  # fmt: skip
    for part in parts:
        assert part in words, part
    again = re.search(r"cd (\S+) && imgzoo train --config (\S+) --output \S+-again", words)
    assert again and again[2].endswith("/run/config.toml")
    own = re.sub(r'<script id="charts".*?</script>', "", (run / "report.html").read_text(), flags=re.S)
    assert not re.search(r"https?:|src=.(?!data:)|@import|url\(", own)
    tables = re.findall(r'role="region" aria-label="(.*?)"', own)
    assert "Table of right, given, images, of the class" in tables and len({*tables} - {"Table"}) >= 2
    told = (run / "config.toml").read_text()
    (run / "config.toml").write_text(re.sub(r'^source = ".*"', 'source = "digits:"', told, flags=re.M))
    assert page.headline(reading.open_run(run)).startswith("test_resnet on digits: ")


def test_the_figures_are_those_of_the_run(run):
    found = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', (run / "report.html").read_text(), re.S)[1])
    lines = {(figure["title"], each["name"]): each for figure in found["figures"] if "lines" in figure
             for each in figure["lines"]}  # fmt: skip
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    for key, kind, name in ((("Loss", "training"), "train", "loss"), (("Loss", "validation"), "eval", "loss"),
                            (("Score: top-1 accuracy", "validation, ema"), "eval", "top1_ema"),
                            (("Learning rate", "learning rate"), "train", "lr")):  # fmt: skip
        own = [row for row in rows if row["kind"] == kind]
        assert lines[key]["y"] == pytest.approx([row[name] for row in own], rel=1e-5, abs=1e-9)
        assert lines[key]["x"] == [row["epoch"] for row in own]
    heat = next(figure for figure in found["figures"] if figure.get("kind") == "heat")
    assert heat["labels"] == ["ant", "bee", "cat", "dog"] and sum(heat["counts"]) == 8


def test_the_network_is_shown_what_it_was_given_and_the_loader_stays_where_it_is(finished):
    rows = json.loads((finished / "report" / "seen.json").read_text())
    assert len(rows) == 8 and {row["target"] for row in rows} <= {"ant", "bee", "cat", "dog"}
    assert all(row["image"].startswith("data:image/webp;base64,") for row in rows)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (
            "report/evaluation.json",
            "How the images of validation were answered cannot be shown: report/evaluation.json is",
        ),
        ("report/seen.json", "What the network saw cannot be shown: report/seen.json is"),
        ("environment.json", "How the data was found cannot be shown: environment.json is"),
        ("metrics.jsonl", "Curves cannot be shown: metrics.jsonl is"),
        ("config.toml", "The settings cannot be shown: config.toml is"),
        ("summary.json", "stopped before its end"),
    ],
)
@pytest.mark.parametrize("damage", ["gone", "broken"])
def test_a_run_that_lacks_a_file_says_so(run, file, words, damage):
    if damage == "gone":
        (run / file).unlink()
    else:
        (run / file).write_bytes(b'\xff{"task": ')
    found = written(run)
    assert words in found and ("is not there" in found or "is damaged" in found or file == "summary.json")


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("report/evaluation.json", {"confusion": [[0], [9], [1]], "labels": ["a"]}),
        ("report/evaluation.json", {"bins": 3}),
        ("report/evaluation.json", {"worst": [{"image": 1}]}),
        ("report/seen.json", [1]),
        ("environment.json", {"data": {"train": {"samples": "many", "fewest": "a", "most": "b"}}}),
    ],
)
def test_a_file_with_other_values_than_a_run_writes_costs_its_section_alone(run, file, value):
    (run / file).write_text(json.dumps(value))
    words = written(run)
    assert f"{file} is damaged" in words and "Curves Smoothing" in words and "top-1 accuracy" in words


def test_a_summary_with_other_values_is_refused_in_a_sentence(run):
    (run / "summary.json").write_text(json.dumps({"step": 8, "best": [1], "metric": "top1"}))
    assert "metrics.jsonl or summary.json" in fails(command, run)


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("summary.json", {"step": 8, "best": {"top1": {}}, "metric": "top1"}),
        ("report/evaluation.json", {"task": {}, "rates": 3}),
        ("report/evaluation.json", {"labels": 3.5, "rates": {"n": 1.5}}),
    ],
)
def test_a_damaged_run_is_not_compared(run, file, value, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    (other / file).write_text(json.dumps(value))
    words = fails(command, other, run, "--output", tmp_path / "page.html")
    assert "is damaged" in words and not (tmp_path / "page.html").exists()


def test_a_killed_run_and_a_running_one_have_a_page(run):
    from imgzoo_train.files.storage import held

    (run / "summary.json").unlink()
    assert "and stopped before its end, after 2 epochs" in written(run)
    with held(run):
        assert "and still running, after 2 epochs" in written(run)
    (run / "report" / "evaluation.json").unlink()
    best = reading.open_run(run).best
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines() if '"eval"' in row]
    assert best[0]["top1"] == max(max(row["top1"], row["top1_ema"]) for row in rows) and best[1] in ("raw", "ema")


def test_what_is_no_run_is_refused_and_so_are_three(tmp_path, run):
    assert "is no run folder" in fails(command, tmp_path)
    assert "one run, or two to compare, not 3" in fails(command, run, run, run)
    assert "choose another --output" in fails(command, run, "--output", tmp_path / "none" / "page.html")
    (tmp_path / "photo.png").write_bytes(b"a picture")
    assert "a .html file" in fails(command, run, "--output", tmp_path / "photo.png")
    assert (tmp_path / "photo.png").read_bytes() == b"a picture"


def test_two_runs_are_compared(run, tmp_path, monkeypatch):
    other = shutil.copytree(run, tmp_path / "other")
    (other / "config.toml").write_text((other / "config.toml").read_text().replace("lr = 0.01", "lr = 0.02"))
    summary = json.loads((run / "summary.json").read_text())
    (other / "summary.json").write_text(json.dumps(summary | {"best": summary["best"] | {"top1": 12.5}}))
    told = json.loads((other / "report" / "evaluation.json").read_text())
    told["rates"]["recall"] = [0.0] * 4
    (other / "report" / "evaluation.json").write_text(json.dumps(told))
    monkeypatch.chdir(tmp_path)
    invoke(command, run, other)
    words = shown(tmp_path / "comparison.html")
    gap = summary["best"]["top1"] - 12.5
    assert f"other is worse than run by {gap:.2f} points of top-1 accuracy" in words
    assert "chance leaves" in words and "optim.lr 0.01 0.02" in words and "Both ran on the same." in words
    assert "Worse in other" in words and "The data is the same" in words
    environment = json.loads((other / "environment.json").read_text())
    environment["data"]["validation"]["samples"] = 9
    (other / "environment.json").write_text(json.dumps(environment))
    assert "on other images of validation" in comparing.render(reading.open_run(run), reading.open_run(other))
    for file in ("summary.json", "metrics.jsonl", "report/evaluation.json"):
        (other / file).unlink()
    assert "No top-1 accuracy of other to compare" in comparing.render(reading.open_run(run), reading.open_run(other))


def test_without_the_library_the_charts_are_drawn_and_the_extra_is_named(run, monkeypatch):
    monkeypatch.setattr(shell, "packed_library", lambda: None)
    monkeypatch.setattr("imgzoo_train.reporting.parts.packed_library", lambda: None)
    words, text = written(run), (run / "report.html").read_text()
    assert "pip install 'imgzoo-core[explore]'" in words
    assert text.count("<svg") >= 6 and 'id="charts"' not in text and len(text) < BOUND


def test_a_failure_of_any_kind_costs_the_page_alone(go, monkeypatch):  # noqa: F811
    def broken(*arguments, **options):
        raise KeyError("no such")

    for name in ("write_evaluation", "write_seen"):
        monkeypatch.setattr(record, name, broken)
    monkeypatch.setattr(page, "write_report", broken)
    assert go(epochs=1)["step"] == 4 and (go.folder / "best" / "config.json").is_file()
    lost = [text.partition(":")[0] for text in SAID if text.endswith("everything else is written")]
    assert lost == ["no sheet of inputs", "no record of the answers", "no report"]


class Pictures:
    """Noise, the hardest to pack, of which one cannot be read."""

    range = None

    def __init__(self, names):
        self.names = names

    def __getitem__(self, index):
        from imgzoo_data.sources.base import Sample

        pixels = np.random.default_rng(index).integers(0, 256, (300, 400, 3), np.uint8)
        return Sample(pixels if index else b"broken", 0, self.key(index))

    def key(self, index):
        return f"{BAD[index % len(BAD)]}-{index}"


class Sources:
    def __init__(self, classes, names):
        self.names, self.align, self.validation = names, Alignment(classes), Pictures(names)


def scored(task, classes, count=600, seed=0):
    """An evaluation of a model that is wrong half of the time."""
    from train_toys import Batch

    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes, (count,), generator=generator)
    images = torch.randn(count, classes, generator=generator)
    images[torch.arange(count), targets] += 4
    if task == "multilabel":
        targets = (images > 1).float()
    if task == "regression":
        targets = images + torch.randn(count, classes, generator=generator)
    batches = [Batch(images[i : i + 100], targets[i : i + 100], torch.arange(i, i + 100)) for i in range(0, count, 100)]
    return evaluate(torch.nn.Identity(), batches, classes=classes, task=task)


def with_answers(run, task, classes, names=None):
    """A run whose validation was answered so."""
    found = scored(task, classes)
    names = [f"class {index}" for index in range(classes)] if names is None else names
    told = evaluation(found, Sources(classes, names), task)
    (run / "report" / "evaluation.json").write_text(json.dumps(told))
    return found


@pytest.mark.parametrize(("classes", "kept"), [(6, 6), (1000, 1000), (3000, 1000)])
def test_a_page_is_bounded_whatever_the_classes_and_their_names(run, classes, kept):
    with_answers(run, "classification", classes, [BAD[index % len(BAD)] + str(index) for index in range(classes)])
    rows = "".join(json.dumps({"kind": "train", "step": i, "epoch": i / 1e4, "loss": 1.0, "images": 8,
                               "images_per_second": 8.0, "data_wait": 0.0}) + "\n" for i in range(30_000))  # fmt: skip
    (run / "metrics.jsonl").write_text(rows)
    words, text = written(run), (run / "report.html").read_text()
    library = shell.packed_library()
    assert len(text.encode()) - (len(library.packed) if library else 0) < BOUND
    own = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.S)[1])["figures"]
    heat = next(figure for figure in own if figure.get("kind") == "heat")
    assert len(heat["labels"]) == kept and max(map(len, heat["labels"])) <= record.LETTERS
    assert all(len(each["x"]) <= 1000 for figure in own for each in figure.get("lines", ()))
    assert "\x1b" not in text and "\u202e" not in text and text.count("<script") == 3 + bool(library)
    assert not re.search(r"<[^>]* onload=", text) and "<!--" not in text
    assert (f"Of {classes:,} classes these are the {kept:,}" in words) == (classes > kept)


def test_several_labels_and_numbers_have_what_makes_sense_for_them(run):
    found = with_answers(run, "multilabel", 5)
    words = written(run)
    worst = min(row["ap"] for row in found.scores.per_class())
    assert "average precision average precision % recall % precision % F1 %" in words
    assert f"{worst:.1f}" in words and "Confusion" not in words and "Worst mistakes" in words
    found = with_answers(run, "regression", 2, [])
    words, text = written(run), (run / "report.html").read_text()
    for part in ("Predicted against true", "Output 0", "Output 1"):
        assert part in words
    assert "Classes class" not in words
    own = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.S)[1])["figures"]
    points = next(figure for figure in own if figure["title"] == "Output 1")["lines"][0]
    assert points["x"] == [each.target[1] for each in found.some]
    assert points["y"] == [each.output[1] for each in found.some]


def test_the_samples_worth_a_look_are_those(run):
    found = scored("classification", 6)
    assert [each.loss for each in found.worst] == sorted((each.loss for each in found.worst), reverse=True)
    chances = [torch.tensor(each.output).softmax(0) for each in found.sure]
    assert found.sure and all(int(chance.argmax()) != each.target[0] for chance, each in zip(chances, found.sure))
    assert [float(chance.max()) for chance in chances] == sorted((float(c.max()) for c in chances), reverse=True)
    told = evaluation(found, Sources(6, [f"class {index}" for index in range(6)]), "classification")
    first = told["sure"][0]
    assert first["given"] == [[f"class {int(chances[0].argmax())}", round(float(chances[0].max()), 4)]]
    assert first["right"][0][0] == f"class {int(found.sure[0].target[0])}"


def test_an_image_that_cannot_be_read_is_no_obstacle():
    assert record.picture(Pictures([]), 0) == "" and record.picture(Pictures([]), 1).startswith("data:image/webp")


@pytest.mark.parametrize("values", [[0.0], [1.0, 1.0], [-3.0, 5e-9, 7e12], [2.0] * 40])
def test_any_values_are_drawn(values):
    rows = [{"epoch": place, "y": value} for place, value in enumerate([*values, float("nan"), float("inf")])]
    (own,) = line("a<b", rows, "y", 0)
    assert own.y == values and line("none", rows, "z", 0) == []
    for kind in ("line", "bar", "point"):
        text = drawing.svg(Figure("t", "x", "y", [Line("n", own.x, own.y, kind=kind)]))
        assert "nan" not in text and "inf" not in text
    assert drawing.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_a_clock_that_begins_anew_with_a_resume_is_added_up():
    rows = [{"kind": "train", "seconds": at, "images": 10, "images_per_second": 10, "data_wait": wait}
            for at, wait in ((2.0, 0.9), (4.0, 0.9), (1.0, 0.9), (3.0, 0.9))]  # fmt: skip
    times = reading.times_of([*rows, {"kind": "eval", "seconds": 5.0, "eval_seconds": 2.0}])
    assert times.whole == pytest.approx(9) and times.bound == "data" and times.evaluating == 2
    assert "Data bounded it: 90%" in page.verdict(times)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("updates", "seconds"), [(1000, 0.01), (1000, 1.0), (50, 0.1), (10, 20.0), (10, 900.0)])
def test_without_a_terminal_a_line_comes_after_a_tenth_of_an_epoch_and_30_seconds(updates, seconds, monkeypatch):
    clock, lines, steps = Clock(), [], 3 * updates
    monkeypatch.setattr(Bar, "say", lambda self, text: lines.append((clock.now, step, text)))
    bar = Bar(steps, 0, updates, "top1", clock=clock)
    for step in range(1, steps + 1):
        clock.now += seconds
        row = {"step": step, "epoch": step / updates}
        bar.row({**row, "kind": "train", "loss": 0.5, "images_per_second": 1234.0, "data_wait": 0.1})
        if step % updates == 0:
            bar.row({**row, "kind": "eval", "top1": 91.25, "top1_ema": 92.5, "loss": 0.1})
    gaps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip([(0.0, 0, ""), *lines], lines)]
    assert all(time >= SECONDS - 1e-6 and done >= updates / 10 for time, done in gaps)
    whole = steps * seconds
    least = max(updates / 10, -(-SECONDS // seconds))
    assert len(lines) == pytest.approx(steps // least, abs=1) and (lines or whole < SECONDS)
    if lines and lines[-1][1] > updates:
        assert "loss 0.5000  top1 91.25  top1_ema 92.50  1,234 img/s" in lines[-1][2]
    assert all(" left" in text for _, step, text in lines if step < steps)


def test_on_a_terminal_one_live_bar_has_loss_score_speed_and_the_time_left(monkeypatch):
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda console: True))
    said = []
    with Bar(100, 0, 10, "top1") as bar:
        monkeypatch.setattr(Bar, "say", lambda self, text: said.append(text))
        bar.row({"kind": "train", "step": 1, "epoch": 0.1, "loss": 0.25, "images_per_second": 99.0, "data_wait": 0.0})
        bar.row({"kind": "eval", "step": 10, "epoch": 1.0, "top1": 50.0, "loss": 1.0})
        figures = bar.progress.tasks[0].fields["figures"]
    assert said == [] and "loss 0.2500  top1 50.00  99 img/s" in figures
    assert any(type(column).__name__ == "TimeRemainingColumn" for column in bar.progress.columns)


def test_updates_that_were_left_out_are_told_when_the_next_line_comes(monkeypatch):
    clock, lines = Clock(), []
    monkeypatch.setattr(Bar, "say", lambda self, text: lines.append(text))
    bar = Bar(100, 0, 10, "top1", clock=clock)
    row = {"kind": "train", "epoch": 1.0, "images_per_second": 1.0, "data_wait": 0.0}
    bar.row({**row, "step": 1, "left_out": 2})
    clock.now = 31.0
    bar.row({**row, "step": 5, "loss": 1.0, "left_out": 1})
    assert len(lines) == 1 and "3 updates not finite, left out" in lines[0]


def test_a_run_writes_its_page_through_the_door_that_the_command_uses(finished):
    assert page.render(reading.open_run(finished)) == (finished / "report.html").read_text()


@pytest.fixture(scope="module")
def window():
    with chromium.window() as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("classes", [6, 1000])
def test_in_a_browser(window, run, classes):
    """Plots are drawn in both themes, smoothing acts, a matrix of 1,000 classes within 2 s; the console stays empty."""
    pytest.importorskip("plotly", reason="the page carries plotly: pip install 'imgzoo-core[explore]'")
    with_answers(run, "classification", classes, [BAD[index % len(BAD)] + str(index) for index in range(classes)])
    invoke(command, run)
    window.get((run / "report.html").as_uri())
    chromium.wait(window, lambda: chromium.marked(window, "ready"))
    frames = window.find_elements("css selector", "[data-figure]")
    assert len(frames) >= 8 and all(frame.find_elements("css selector", ".main-svg") for frame in frames)
    heat = "[...document.querySelectorAll('[data-figure]')].find(e => e.data[0].type === 'heatmap')"
    filled = f"let n = 0; for (const row of {heat}.data[0].z) for (const v of row) n += !Number.isNaN(v); return n"
    told = json.loads((run / "report" / "evaluation.json").read_text())
    assert window.execute_script(filled) == len(told["confusion"][0])
    drawing = f"const s = performance.now(); await drawHeat({heat}, data.figures.find(f => f.kind === 'heat'));"
    assert window.execute_async_script(f"(async () => {{ {drawing} return performance.now() - s; }})()"
                                       ".then(arguments[0])") < 2000  # fmt: skip
    assert float(chromium.marked(window, "drawMs")) < 5000

    curve = "return [...document.querySelectorAll('[data-figure]')][0].data.length"
    before = window.execute_script(curve)
    window.execute_script("at('smoothing').value = 0.6; at('smoothing').dispatchEvent(new Event('input'))")
    chromium.wait(window, lambda: window.execute_script(curve) > before)
    colors = set()
    for _ in range(2):
        colors.add((chromium.marked(window, "theme"), window.execute_script(
            "return [getComputedStyle(document.body).backgroundColor, "
            "[...document.querySelectorAll('[data-figure]')][0].layout.font.color].join()")))  # fmt: skip
        window.find_element("id", "theme").click()
    assert {theme for theme, _ in colors} == {"dark", "light"} and len({color for _, color in colors}) == 2
    assert window.execute_script("return [...document.images].every(each => each.complete && each.naturalWidth)")
    unnamed = window.execute_script(
        "return [...document.querySelectorAll('input,select,button')].filter("
        "e => !e.labels?.length && !e.textContent.trim() && !e.getAttribute('aria-label')).length"
    )
    assert unnamed == 0 and window.get_log("browser") == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_in_a_browser_without_the_library_and_compared(window, run, tmp_path, monkeypatch):
    other = shutil.copytree(run, tmp_path / "other")
    invoke(command, run, other, "--output", tmp_path / "both.html")
    monkeypatch.setattr(shell, "packed_library", lambda: None)
    invoke(command, run)
    for path, drawn in ((run / "report.html", "svg"), (tmp_path / "both.html", ".main-svg")):
        window.get(path.as_uri())
        chromium.wait(window, lambda: chromium.marked(window, "ready"))
        frames = window.find_elements("css selector", ".figure:not(.tall) [data-figure]")
        assert frames and all(frame.find_elements("css selector", drawn) for frame in frames)
        assert window.get_log("browser") == []
