"""docs/plugin-authors.md says what is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from imgzoo import hookspecs
from imgzoo.catalog import MODEL_KEYS, NORMALIZE, check, format_catalog
from imgzoo.discovery.manager import TROUBLE
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


def test_the_plugin_module_on_the_page_works(site, use_plugins):
    from imgzoo.registry import registry

    files = {"acme_zoo/catalog/acme_net.json": block("json"), "acme_zoo/_plugin.py": block("python")}
    site.add("acme-zoo", "acme", "", files=files)
    use_plugins(site.manager(IMGZOO_STRICT="1"))
    assert registry("models").names() == ["acme_net_small", "acme_net_tiny"]
    assert registry("optimizers").resolve("acme_sgd").target == "imgzoo_acme.optim:AcmeSGD"


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
