"""The pages are true: what they show runs, and what cannot run here is compiled, looked up and counted.

A page's blocks run in their order, in one folder that holds `photo.jpg` and `photos/` (train and validation, three
classes): `python` in one namespace, the lines of `console` that begin with `$ ` in a shell. `<!-- needs: REASON -->`
above a block keeps it from running.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("packages/*/README.md"))]
BLOCK = re.compile(r"(?:^<!-- needs: (?P<needs>[^\n]+) -->\n)?^```(?P<language>python|console)\n(?P<text>.*?)^```",
                   re.MULTILINE | re.DOTALL)  # fmt: skip
GENERATED = re.compile(r"<!-- generated: ([a-z-]+) -->\n.*?<!-- end -->", re.DOTALL)
QUICK = {"README.md", "docs/index.md", "docs/quickstart.md", "docs/from-timm.md", "docs/tutorials/features.md",
         "docs/tutorials/notebook.md", "docs/plugin-authors.md", "packages/data/README.md", "packages/optim/README.md",
         "packages/timm/README.md"}  # fmt: skip
"""Pages that take a few seconds; the others run in the slow session."""
NOT_RUN = {
    "README.md": 2,
    "docs/from-timm.md": 1,
    "docs/guides/offline.md": 2,
    "docs/model-base.md": 1,
    "docs/plugin-authors.md": 2,
    "docs/quickstart.md": 2,
    "docs/tutorials/deploy.md": 1,
    "docs/tutorials/evaluate.md": 1,
    "docs/tutorials/from-scratch.md": 1,
    "docs/tutorials/plugin.md": 1,
}
"""How many blocks of a page need what a test has not: a network, another machine, a cluster."""
RUN = """
import json, subprocess, sys
namespace = {"__name__": "page"}
for line, language, text in json.loads(sys.stdin.read()):
    if language == "python":
        exec(compile("\\n" * line + text, sys.argv[1], "exec"), namespace)
    else:
        for command in text.split("\\n"):
            done = subprocess.run(command, shell=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{sys.argv[1]}: {command}\\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
"""


class Snippet(NamedTuple):
    line: int
    language: str
    text: str
    needs: str


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def snippets(page: Path) -> list[Snippet]:
    """Blocks of a page; of `console` only the commands, a line each."""
    found, text = [], page.read_text()
    for match in BLOCK.finditer(GENERATED.sub("", text)):
        body = match["text"]
        if match["language"] == "console":
            whole = re.sub(r"\\\n\s*", " ", body)
            body = "\n".join(line[2:].partition("  #")[0] for line in whole.splitlines() if line.startswith("$ "))
            assert body, f"{name(page)} shows a console without a command"
        line = text[: text.index(match["text"])].count("\n")
        found.append(Snippet(line, match["language"], body, match["needs"] or ""))
    return found


def shown(page: Path) -> list[str]:
    """Commands of a page that do not run: those that need something, and those of indented blocks."""
    fenced = [line for each in snippets(page) if each.needs and each.language == "console" for line in
              each.text.splitlines()]  # fmt: skip
    bare = re.sub(r"^```.*?^```", "", GENERATED.sub("", page.read_text()), flags=re.MULTILINE | re.DOTALL)
    indented = [line.strip() for line in bare.splitlines() if line.startswith("    imgzoo ")]
    return [line for line in fenced + indented if re.match(r"(\w+=\S+ )*imgzoo ", line)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the pages assume: a photograph, and a small folder of images by class."""
    import numpy as np
    from PIL import Image
    from skimage import data

    place = tmp_path_factory.mktemp("pages")
    Image.fromarray(data.coffee()).save(place / "photo.jpg")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 6)):
        for channel, kind in enumerate(("apples", "grapes", "plums")):
            (place / "photos" / split / kind).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 120, (64, 64, 3), dtype=np.uint8)
                pixels[16:48, 16:48, channel] += 120
                Image.fromarray(pixels).save(place / "photos" / split / kind / f"{index}.png")
    return place


def pages_that_run():
    for page in PAGES:
        if any(not each.needs for each in snippets(page)):
            marks = [] if name(page) in QUICK else [pytest.mark.slow]
            yield pytest.param(page, id=name(page), marks=marks)


@pytest.mark.parametrize("page", [*pages_that_run()])
def test_a_page_runs(page, folder, tmp_path):
    for each in folder.iterdir():
        (tmp_path / each.name).symlink_to(each)
    blocks = [(each.line, each.language, each.text) for each in snippets(page) if not each.needs]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    env = {**os.environ, "PATH": path, "IMGZOO_CACHE": str(folder / "cache")}
    done = subprocess.run([sys.executable, "-c", RUN, name(page)], input=json.dumps(blocks), cwd=tmp_path, env=env,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_that_does_not_run_compiles(page):
    for each in snippets(page):
        if each.needs and each.language == "python":
            compile(each.text, name(page), "exec")


def test_what_does_not_run_is_counted():
    found = {name(page): sum(bool(each.needs) for each in snippets(page)) for page in PAGES}
    assert {page: count for page, count in found.items() if count} == NOT_RUN


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_has_a_known_language(page):
    """Python under another name, or none, would be passed over."""
    fences = re.findall(r"^```(.*)$", GENERATED.sub("", page.read_text()), flags=re.MULTILINE)[::2]
    assert {*fences} <= {"python", "console", "toml", "json", "text", "bash", "yaml"}, fences


@cache
def options(*words: str) -> set[str] | None:
    """Flags of a command of imgzoo; None for words that are no command."""
    import click

    from imgzoo.cli.app import cli

    command, context = cli, click.Context(cli)
    for word in words:
        found = command.get_command(context, word) if isinstance(command, click.Group) else None
        if found is None:
            return None
        command, context = found, click.Context(found, parent=context)
    return {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("page", [page for page in PAGES if shown(page)], ids=name)
def test_commands_that_do_not_run_are_spelled_right(page):
    for line in shown(page):
        words = shlex.split(line.partition("  #")[0])
        words = words[words.index("imgzoo") + 1 :]
        path = words[:2] if words[0] in ("data", "weights") else words[:1]
        known = options(*path) if not path[0].startswith("-") else options()
        assert known is not None, line
        if path[0] == "launch":  # what follows is another command, with flags of its own
            inner = next(word for word in words if word in ("train", "validate"))
            known = known | (options(inner) or set())
        used = {word.partition("=")[0] for word in words if re.match(r"--[a-z]|-[a-z]$", word)}
        assert used <= known, line


def test_generated_parts_are_current():
    done = subprocess.run([sys.executable, ROOT / "tools/readme.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


VARIABLE = re.compile(r"\bIMGZOO_[A-Z][A-Z_]*\b")


def variables(*places: str) -> set[str]:
    files = [file for place in places for file in ROOT.glob(place) if file.is_file()]
    return {found for file in files for found in VARIABLE.findall(file.read_text())} - {"IMGZOO_API"}


def test_every_environment_variable_has_a_row():
    told = set(re.findall(r"^\| `(IMGZOO_[A-Z_]+)", (ROOT / "docs/reference/environment.md").read_text(), re.MULTILINE))
    used = variables("packages/*/src/**/*.py")
    tests = variables("tests/**/*.py", "benchmarks/**/*.py", "tools/*.py", "noxfile.py") - used
    assert told == used | {each for each in tests if each in told}
    assert {"IMGZOO_DIFFERENCES", "IMGZOO_CLIENTS_PEER"} <= told


def test_the_table_of_timms_flags_names_flags_that_exist():
    from imgzoo_docs import timm_flags

    assert timm_flags.unknown() == []
    assert "--opt" in timm_flags.flags() and "--no-such" not in timm_flags.flags()


def test_every_flag_stands_in_the_reference():
    from imgzoo_docs import commands, settings, timm_flags

    page = commands.page()
    assert [flag for flag in timm_flags.flags() if flag not in page] == []
    rows = settings.page()
    from imgzoo_train.config.settings import rows as known

    assert [key for key in known() if f"`{key}`" not in rows] == []


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ('<script src="https://cdn.example/x.js"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example/css">', True),
        ('<link href="https://fonts.example" rel="preconnect">', True),
        ("body { background: url(https://example.org/a.png) }", True),
        ('<img alt="" src="../a.svg"><script src="assets/x.js"></script>', False),
        ('<a href="https://arxiv.org/abs/2010.11929">paper</a>', False),
    ],
)
def test_what_a_page_would_fetch_is_seen(text, foreign):
    from imgzoo_docs.network import fetched

    assert bool(fetched(text)) is foreign


def test_text_of_the_code_is_shown_as_written():
    from imgzoo_docs.commands import split_default
    from imgzoo_docs.markdown import code, plain, table

    assert split_default("images a step  [default: 64; x>=1]") == ("images a step (x>=1)", "64")
    assert split_default("[default: 1; x>=1]") == ("(x>=1)", "1")
    assert split_default("share of [0, 1]") == ("share of [0, 1]", "")
    assert code("a|b") == "<code>a&#124;b</code>" and code("a") == "`a`" and code("") == ""
    assert plain("a_b < `c_d`") == r"a\_b &lt; `c_d`"
    assert table(("a",), [("x | y",)]).splitlines()[-1] == "| x &#124; y |"


def test_every_family_has_a_page_with_its_variants_weights_and_options():
    from imgzoo.registry import registry
    from imgzoo_docs import families

    specs = [spec for spec in registry("models").specs() if spec.family in ("convnext", "resnet")]
    for family in ("convnext", "resnet"):
        own = [spec for spec in specs if spec.family == family]
        page = families.page(family, own)
        assert [spec.name for spec in own if f"| `{spec.name}` |" not in page] == []
        tags = [f"{spec.name}.{each.tag}" for spec in own for each in spec.weights if each.published]
        assert tags and [tag for tag in tags if f"`{tag}`" not in page] == []
        assert "| `drop_path_rate` |" in page
        told = {*re.findall(r"arXiv:([\d.]+\d)", families.about(own[0]))}
        assert told and told <= {*re.findall(r"\(https://arxiv.org/abs/([\d.]+)\)", page)}


@pytest.mark.slow
def test_every_family_has_a_page_whose_example_works():
    import imgzoo
    from imgzoo_docs import families

    pages = families.pages()
    names = [
        re.search(r'create_model\("(\w+)", num_classes=10\)', text)
        for path, text in pages.items()
        if "index" not in path
    ]
    assert len(names) == len({*(ROOT.glob("packages/archs-*/src/*/catalog/*.json"))})
    for name in names:
        assert imgzoo.create_model(name[1], num_classes=10, device="meta").num_classes == 10


def test_the_picture_has_every_package_and_its_imports():
    from imgzoo_docs import architecture

    names = {path.name for path in ROOT.glob("packages/*/src/imgzoo*")}
    assert names == {name for row in architecture.layers() for name in row}
    assert all(f">{name}</text>" in architecture.picture() for name in names)
    assert re.match(r'<figure><svg width="\d+" height="\d+" ', architecture.picture()), "without a size it has none"
    spots = [*architecture.places().values()]
    beside = [abs(x - other) for (x, y), (other, level) in combinations(spots, 2) if y == level]
    assert beside and min(beside) > architecture.WIDTH, "boxes overlap"
    assert architecture.imports()["imgzoo_train", "imgzoo_data"] > 5
    assert not [pair for pair in architecture.imports() if pair[0] == "imgzoo"], "the core imports a package above it"
