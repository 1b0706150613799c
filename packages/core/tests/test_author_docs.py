"""docs/plugin-authors.md says what is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from imgzoo import hookspecs
from imgzoo.catalog import MODEL_KEYS, NORMALIZE, check, format_catalog
from imgzoo.discovery.manager import TROUBLE
from imgzoo.registry import KINDS
from imgzoo.scaffold import render

PAGE = Path(__file__).parents[3] / "docs" / "plugin-authors.md"
if not PAGE.exists():
    pytest.skip("the documentation is not in the source distribution", allow_module_level=True)
TEXT = PAGE.read_text()


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[1]


def first_cells(heading: str) -> list[str]:
    """First column of the table under a heading row."""
    table = TEXT[TEXT.index(f"| {heading}") :].split("\n\n")[0]
    return re.findall(r"^\| `([^`]*)`", table, re.MULTILINE)


def test_the_table_of_hooks_is_complete():
    assert first_cells("hook") == [name for name in vars(hookspecs) if name.startswith("imgzoo_")]


def test_the_table_of_states_is_complete():
    assert set(first_cells("state")) == {"ok", "eager", "disabled", *TROUBLE}


def files():
    """What the page writes, by path: blocks of one file one after another, the network of `imgzoo new-plugin`."""
    found = {
        "imgzoo_acme/py.typed": "",
        "imgzoo_acme/__init__.py": "",
        "imgzoo_acme/catalog/acme_net.json": block("json"),
    }
    for path, text in re.findall(r"```python\n# (\S+)\n(.*?)```", TEXT, re.DOTALL):
        found[path] = found.get(path, "") + text
    return {**found, "imgzoo_acme/acme_net.py": render("acme")["src/imgzoo_acme/acme_net.py"]}


@pytest.fixture
def page(site):
    pytest.importorskip("imgzoo_train")
    metadata = "Name: imgzoo-acme\nVersion: 1.0\nRequires-Dist: imgzoo-core<2,>=0.1\n"
    points = "[imgzoo.plugins]\nacme = imgzoo_acme._plugin\n"
    site.add("imgzoo-acme", "acme", None, metadata=metadata, entry_points=points, files=files())
    return site


def test_every_block_of_python_says_which_file_it_is():
    assert TEXT.count("```python\n") == len(re.findall(r"```python\n# \S+\.py\n", TEXT))


def test_the_plugin_on_the_page_keeps_the_contract(page, use_plugins):
    """Every example runs, and the checks that a section names are there and pass."""
    from imgzoo.testing import check_plugin

    use_plugins(page.manager_beside_others(IMGZOO_STRICT="1"))
    (plugin,) = page.manager_beside_others().named("acme")
    assert set(plugin.hooks) >= {name for name in vars(hookspecs) if name.startswith("imgzoo_")}
    found = check_plugin("acme", examples={"dataset:stripes": "4"}, sample=1)
    assert [row for row in found if row.status == "failed"] == []
    passed = {row.name for row in found if row.status == "passed"}
    sections = " ".join(re.findall(r"^Checks.*?\n\n", TEXT, re.MULTILINE | re.DOTALL))
    named = {name for name in re.findall(r"`([a-z_]+)`", sections)} - {"load_strictly", "logits_are_sane"}
    assert named <= passed
    kinds = {row.subject.partition(":")[0] for row in found}
    assert kinds == {"plugin", "model", *(kind.noun.replace(" ", "-") for kind in KINDS.values())}


def test_the_tests_on_the_page_pass(page):
    import subprocess
    import sys

    whole = page.path / "tests" / "test_acme.py"
    whole.write_text(whole.read_text().replace('"acme", examples', '"acme", tiers=("static", "component"), examples'))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(whole.parent)]
    done = subprocess.run(command, cwd=page.path, env=page.environ(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def test_what_the_page_says_of_runs_happens(page, use_plugins, tmp_path):
    """A run with the page's schedule, optimizer, transform, source, logger, loss and trainer; its events are told."""
    from imgzoo_train import Config
    from imgzoo_train.config.settings import nested
    from imgzoo_train.runs.trainers import trainer

    use_plugins(page.manager_beside_others(IMGZOO_STRICT="1"))
    settings = {
        "model.name": "acme_net_tiny", "data.source": "stripes:16", "data.val_source": "stripes:8",
        "data.allow_shared": True, "data.batch_size": 8, "data.augment.row": "rrc | speckle(amount=0.1)",
        "data.input_size": 32, "optim.name": "acme_sgd", "schedule.name": "sawtooth", "loss.name": "margin",
        "run.loggers": ["losses-only"], "run.trainer": "patient", "run.epochs": 1, "run.device": "cpu",
        "run.threads": 1, "run.output": str(tmp_path / "r"),
    }  # fmt: skip
    config = Config().merged(nested(settings), "test")
    summary = trainer(config)(config, quiet=True)
    assert summary["epochs"] == 2  # the patient trainer
    assert (tmp_path / "r" / "losses.txt").read_text().count("eval") == 2
    assert re.fullmatch(r"acme_net_tiny on stripes:16\nbest .*\n", (tmp_path / "r" / "acme.txt").read_text())


def test_the_catalog_on_the_page_is_canonical_and_sound():
    data = json.loads(block("json"))
    assert check(data) == []
    assert format_catalog(data) == block("json")


def test_the_words_of_the_catalog_are_named():
    for word in (*MODEL_KEYS, *NORMALIZE):
        assert f"`{word}`" in TEXT


def test_the_entry_point_is_the_scaffolds():
    assert block("toml") in render("acme")["pyproject.toml"]


def test_commands_on_the_page_exist():
    from imgzoo._plugin import COMMANDS

    used = set(re.findall(r"^    imgzoo ([a-z-]+)", TEXT, re.MULTILINE))
    assert used and used <= {spec.name for spec in COMMANDS}
