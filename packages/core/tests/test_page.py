"""The shell of all pages: text stays text, data stays data, and no script runs but those the policy names."""

import base64
import gzip
import hashlib
import json
import re

import pytest

from imgzoo import page as shell
from imgzoo.page import data_text, filled, page, text

BAD = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\x1b]8;;evil\x07",
    "{{title}}",
    "\udce9",
    "a\u202eb",
    '" x="',
]


@pytest.mark.parametrize("bad", BAD)
def test_what_is_put_in_stays_what_it_is(bad):
    whole = page(bad, bad, bad, text(bad), script="1", data={"names": [bad]})
    assert whole.count("<script") == 3 and "<!--" not in whole and "\x1b" not in whole and "\u202e" not in whole
    held = re.search(r'<script id="data" type="application/json">(.*?)</script>', whole, re.S)
    assert json.loads(held[1])["names"] == [bad]
    assert re.search("<title>(.*?)</title>", whole, re.S)[1] == text(bad)
    whole.encode()


def test_the_policy_names_every_script_of_the_page():
    whole = page("t", "k", "l", "", script="const own = 1;")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', whole)[1]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy.partition("script-src")[2]
    for script in re.findall(r"<script>(.*?)</script>", whole, re.S):
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


def test_a_page_without_a_script_runs_nothing():
    whole = page("t", "k", "l", "<main></main>")
    assert "<script" not in whole and "script-src" not in whole and "<button" not in whole


def test_the_library_is_packed_and_allowed_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(shell, "packed_library", lambda: shell.Library("draw = 1"))
    whole = page("t", "k", "l", "", script="1", charts=True)
    packed = re.search(r'<script id="charts" type="text/plain">(.*?)</script>', whole)[1]
    assert gzip.decompress(base64.b64decode(packed)) == b"draw = 1"
    assert base64.b64encode(hashlib.sha256(b"draw = 1").digest()).decode() in whole
    monkeypatch.setattr(shell, "packed_library", lambda: None)
    assert 'id="charts"' not in page("t", "k", "l", "", script="1", charts=True)


def test_a_template_is_filled_once():
    assert filled("a{{x}}b{{y}}", {"x": "{{y}}", "y": "2"}) == "a{{y}}b2"
    assert data_text({"a": "<", "b": float("nan")}) == '{"a": "\\u003c", "b": null}'
