"""Switches act before anything of a plugin is imported."""

from __future__ import annotations

import pytest


@pytest.fixture
def two(site):
    """Two plugins that leave a mark when they are imported, and one of imgzoo's names."""
    for name in ("alpha", "beta"):
        site.add(f"{name}-zoo", name, f"open({str(site.path / (name + '.mark'))!r}, 'w').close()")
    site.add("imgzoo-optim", "optim", f"open({str(site.path / 'optim.mark')!r}, 'w').close()")
    return site


def imported(site, **environ: str) -> set[str]:
    """Names of plugins that were imported; asserts that the others are `disabled`."""
    host = site.manager(**environ)
    marks = {path.stem for path in site.path.glob("*.mark")}
    states = {plugin.name: plugin.state for plugin in host.plugins if plugin.name != "core"}
    assert states == {name: "ok" if name in marks else "disabled" for name in states}
    return marks


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {"alpha", "beta", "optim"}),
        ({"IMGZOO_PLUGINS": "alpha"}, {"alpha"}),
        ({"IMGZOO_PLUGINS": "alpha, optim"}, {"alpha", "optim"}),
        ({"IMGZOO_PLUGINS": ""}, set()),
        ({"IMGZOO_DISABLE_PLUGINS": "alpha"}, {"beta", "optim"}),
        ({"IMGZOO_DISABLE_PLUGINS": "alpha-zoo beta-zoo"}, {"optim"}),
        ({"IMGZOO_PLUGINS": "alpha beta", "IMGZOO_DISABLE_PLUGINS": "beta"}, {"alpha"}),
        ({"IMGZOO_NO_PLUGINS": "1"}, {"optim"}),
        ({"IMGZOO_NO_PLUGINS": "0"}, {"alpha", "beta", "optim"}),
    ],
)
def test_switch(two, environ, expected):
    assert imported(two, **environ) == expected


def test_the_option_no_plugins_keeps_a_crashing_plugin_out(site):
    site.add("crash-zoo", "crash", "import os; os._exit(9)")
    assert site.run("list").returncode == 9
    assert site.run("--no-plugins", "list").returncode == 0
    assert site.run("list", IMGZOO_DISABLE_PLUGINS="crash").returncode == 0


def test_a_switch_that_names_nobody_is_a_warning_of_the_doctor(site):
    done = site.run("doctor", "names", IMGZOO_DISABLE_PLUGINS="typo")
    assert done.returncode == 0
    assert "IMGZOO_DISABLE_PLUGINS names 'typo'" in done.stdout
    assert site.run("doctor", "names", "--strict", IMGZOO_DISABLE_PLUGINS="typo").returncode == 1


def test_disabled_plugins_are_not_trouble_but_explain_an_unknown_name(site):
    site.add("acme-zoo", "acme", "@hookimpl\ndef imgzoo_models(): return [ModelSpec('acme_net', 'a.b:c')]")
    done = site.run("info", "acme_net", IMGZOO_DISABLE_PLUGINS="acme")
    assert done.returncode == 2
    assert (
        "plugin acme (acme-zoo 1.0) may bring it, but it is 'disabled': IMGZOO_DISABLE_PLUGINS names it" in done.stderr
    )
    assert site.run("list", IMGZOO_DISABLE_PLUGINS="acme").stderr == ""
