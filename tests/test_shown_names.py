"""Names from outside (files, labels, tags, plugins) are shown escaped in every line: terminals have few doors."""

import ast
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import imgzoo_data
import imgzoo_train  # noqa: F401  its errors count below
from imgzoo import errors
from imgzoo.cli.output import print_json, print_table, say, say_text
from imgzoo.text import json_text
from imgzoo_train.terminal.progress import Bar

ROOT = Path(__file__).parents[1]
DOORS = {  # function -> the files that may call it; each shows what it is given escaped, or prints nothing from outside
    "click.echo": {"cli/output.py", "cli/app.py"},
    "print": {"cli/output.py", "cli/info.py", "discovery/manager.py", "discovery/watch.py", "ranks/elastic.py",
              "terminal/tables.py", "terminal/progress.py"},
    "sys.stdout.write": set(),
    "sys.stderr.write": set(),
}  # fmt: skip
HOSTILE = "a\x1b[31mred\x9b2J\u202eevil\u2066\x07\udce9\x00\x7f"
BARE = [char for char in HOSTILE if not char.isprintable()]


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("door", DOORS)
def test_lines_go_through_few_doors(door):
    """A new line to a terminal is `say`, `complain`, `print_table` or `print_json`."""
    found = set()
    for path in ROOT.glob("packages/*/src/**/*.py"):
        if "imgzoo_timm" not in path.parts and any(name == door for name, _ in calls(ast.parse(path.read_text()))):
            found.add("/".join(path.parts[-2:]))
    assert found - DOORS[door] == set()


def test_lines_of_the_log_escape_what_they_are_given():
    """Whatever `%s` of a log line stands for is escaped, a number, or a word of the system's."""
    plain = ("error.strerror", "', '.join(map(str, dead))", "step", "len(refused)", "message", "*map(escaped, values)")
    found = []
    for path in ROOT.glob("packages/*/src/**/*.py"):
        for name, call in calls(ast.parse(path.read_text())):
            if name.endswith("log.warning") or "getLogger('imgzoo" in name:
                found += [(path.name, ast.unparse(argument)) for argument in call.args[1:]]
    assert found
    assert [row for row in found if not row[1].startswith("escaped(") and row[1] not in plain] == []


def subclasses(kind):
    return [kind, *(each for child in kind.__subclasses__() for each in subclasses(child))]


def test_every_error_shows_names_escaped():
    """All but those that make their sentence themselves, out of no text."""
    kinds = [kind for kind in subclasses(errors.ImgzooError) if kind.__init__ is errors.ImgzooError.__init__]
    assert len(kinds) > 5
    for kind in kinds:
        text = str(kind(f"there is no '{HOSTILE}'"))
        assert "there is no" in text and text.isprintable() and "\\x1b[31mred\\x9b" in text, kind


@pytest.mark.parametrize(
    "show", [say, say_text, lambda name: print_table([(name, 1)]), lambda name: print_json({name: [name]}),
             lambda name: Bar(0, 0).say(name)], ids=["say", "say_text", "table", "json", "bar"]
)  # fmt: skip
def test_every_door_shows_names_escaped(show, capsys):
    show(HOSTILE)
    out, err = capsys.readouterr()
    assert "red" in out + err and not [char for char in BARE if char in out + err]


def test_json_is_the_name_itself_when_it_is_read():
    text = json_text({"name": HOSTILE, "more": ["é 漢字 🐜", "two\nlines"]})
    assert json.loads(text) == {"name": HOSTILE, "more": ["é 漢字 🐜", "two\nlines"]}
    assert "é 漢字 🐜" in text and not [char for char in BARE if char in text]
    text.encode("utf-8")


def test_a_line_is_one_line(capsys):
    say("first\nsecond")
    assert capsys.readouterr().out == "first\\nsecond\n"


@pytest.mark.parametrize(
    "arguments", [["data", "check"], ["data", "check", "--json"], ["predict"], ["predict", "--json"]]
)
def test_commands_on_hostile_files(tmp_path, arguments):
    folder = tmp_path / "data"
    for name in ("\x1b[2Jant", "bee\u202e", "cat\x9b31m"):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (number * 90, 9, 9)).save(folder / name / f"{number}\x1b]0;title\x07.png")
        (folder / name / "bad\x1b[5m.png").write_bytes(b"no image")
    more = [f"folder:{folder}"] if arguments[0] == "data" else [str(folder), "--model", str(saved(tmp_path))]
    done = subprocess.run([sys.executable, "-m", "imgzoo", *arguments, *more], capture_output=True)
    shown = (done.stdout + done.stderr).decode("utf-8")
    assert "ant" in shown and all(char.isprintable() or char == "\n" for char in shown)
    if "--json" in arguments:
        json.loads(done.stdout)


def saved(tmp_path):
    import imgzoo

    model = imgzoo.create_model("test_resnet", num_classes=3)
    return imgzoo.save_model(model, tmp_path / "model", class_names=["\x1b[2Jant", "bee\u202e", "cat\x9b"])


def test_logs_of_hostile_samples(tmp_path, caplog):
    (tmp_path / "ant").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "ant" / "0.png")
    (tmp_path / "ant" / "bad\x1b[5m\u202e.png").write_bytes(b"no image")
    source = imgzoo_data.create_dataset(f"folder:{tmp_path}")
    with caplog.at_level(logging.WARNING):
        list(imgzoo_data.create_loader(source, {"input_size": (3, 8, 8)}, 2, training=False, bad="skip", budget=2))
    assert "bad" in caplog.text and not [char for char in "\x1b\u202e" if char in caplog.text]
