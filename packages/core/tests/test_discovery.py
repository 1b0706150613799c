"""Plugins are found, checked and loaded each in its own guard."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from broken_plugins import HEADER

from imgzoo.errors import PluginError
from imgzoo.registry import Registry, fill

MODEL = """
@hookimpl
def imgzoo_models():
    return [ModelSpec("{name}", "{package}.net:Net")]
"""


def add_broken_plugins(site) -> None:
    """Every way to break that users met, beside one plugin that works."""
    site.add("good-zoo", "good", MODEL.format(name="good_net", package="good_zoo"))
    site.add("unrelated", entry_points="[console_scripts]\nno equals sign here\n= = =\n[[[\n", source=None)
    site.add("badvalue-zoo", entry_points="[imgzoo.plugins]\nbadvalue = not a module!\n")
    site.add("badline-zoo", entry_points="[imgzoo.plugins]\nno equals sign\n")
    site.add("importerror-zoo", "importerror", "import there_is_no_such_module")
    site.add("syntaxerror-zoo", "syntaxerror", "def broken(:\n    pass")
    site.add("exit-zoo", "exit", "import sys; sys.exit(3)")
    site.add("signature-zoo", "signature", "@hookimpl\ndef imgzoo_models(unknown_argument): return []")
    site.add("wrapper-zoo", "wrapper", "@hookimpl(wrapper=True)\ndef imgzoo_models():\n    return (yield)")
    site.add(
        "halfway-zoo",
        "halfway",
        """
        @hookimpl
        def imgzoo_models():
            yield ModelSpec("halfway_net", "halfway_zoo.net:Net")
            raise RuntimeError("lost the rest")
        """,
    )
    site.add("wrongtype-zoo", "wrongtype", "@hookimpl\ndef imgzoo_models(): return ['a string']")
    site.add("twice-zoo", "twice", "@hookimpl\ndef imgzoo_models(): return [ModelSpec('twin', 'a.b:c')] * 2")
    site.add("future-zoo", "future", header="from imgzoo.plugin import *\nIMGZOO_API = (1, 99)\n")
    site.add("past-zoo", "past", header="from imgzoo.plugin import *\nIMGZOO_API = (0, 1)\n")
    site.add("noapi-zoo", "noapi", header="")
    site.add("nometa-zoo", "nometa", metadata="")
    site.add("first-zoo", "samename", MODEL.format(name="first_net", package="first_zoo"))
    site.add("second-zoo", "samename", MODEL.format(name="second_net", package="second_zoo"))
    site.add("clash-a-zoo", "clash-a", MODEL.format(name="clash_net", package="clash_a_zoo"))
    site.add("clash-b-zoo", "clash-b", MODEL.format(name="clash_net", package="clash_b_zoo"))
    site.add("thief-zoo", "archs-cnn", MODEL.format(name="thief_net", package="thief_zoo"))
    site.add("eager-zoo", "eager", "import torch\n" + MODEL.format(name="eager_net", package="eager_zoo"))


STATES = {
    "good": "ok",
    "badvalue-zoo": "unreadable",
    "badline-zoo": "unreadable",
    "importerror": "error",
    "syntaxerror": "error",
    "exit": "error",
    "signature": "error",
    "wrapper": "error",
    "halfway": "error",
    "wrongtype": "error",
    "twice": "error",
    "future": "incompatible",
    "past": "incompatible",
    "noapi": "incompatible",
    "nometa-zoo": "unreadable",
    "first-zoo": "ok",
    "second-zoo": "ok",
    "clash-a": "ok",
    "clash-b": "ok",
    "archs-cnn": "name-taken",
    "eager": "eager",
}
LISTED = ["clash-a/clash_net", "clash-b/clash_net", "eager_net", "first_net", "good_net", "second_net"]


@pytest.fixture
def fake_torch(site):
    """A light torch that can be imported, so that the eager plugin can be caught in this process too."""
    real = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "torch"}
    site.write("torch/__init__.py", "")
    yield
    sys.modules.pop("torch", None)
    sys.modules.update(real)


def test_no_broken_plugin_takes_another_down(site, fake_torch):
    add_broken_plugins(site)
    host = site.manager()
    models = fill(host, "models")
    assert models.names() == LISTED
    assert {plugin.name: plugin.state for plugin in host.plugins if plugin.name != "core"} == STATES


def test_the_list_command_survives_them_all(site):
    add_broken_plugins(site)
    site.write("torch/__init__.py", "")
    done = site.run("list")
    assert done.returncode == 0
    assert set(LISTED) <= set(done.stdout.split())
    assert "Run 'imgzoo doctor'." in done.stderr
    trouble, ambiguous = done.stderr.splitlines()
    assert "plugins have trouble" in trouble and "several plugins bring clash_net" in ambiguous
    assert "Traceback" not in done.stderr


def test_plugins_and_doctor_tell_every_state(site):
    add_broken_plugins(site)
    site.write("torch/__init__.py", "")
    rows = {row["name"]: row for row in json.loads(site.run("plugins", "--json").stdout)}
    for name, state in STATES.items():
        if name != "archs-cnn":  # imgzoo's own holds that name here
            assert rows[name]["state"] == state, name
    assert rows["halfway"]["reason"] == "imgzoo_models: RuntimeError: lost the rest"
    assert rows["importerror"]["version"] == "1.0"
    done = site.run("doctor")
    assert done.returncode == 1
    for name, state in STATES.items():
        told = any(f" {state}: " in line and name in line for line in done.stdout.splitlines())
        assert told or state in ("ok", "eager"), name
    assert "unrelated" in done.stdout  # its malformed metadata harms other programs


def test_messages_say_which_side_to_upgrade(site, fake_torch):
    add_broken_plugins(site)
    reasons = {plugin.name: plugin.reason for plugin in site.manager().plugins}
    assert reasons["future"] == "needs plugin API 1.99, this is 1.0: pip install -U imgzoo-core"
    assert reasons["past"] == "written for plugin API 0.1, this is 1.0: upgrade past-zoo"
    assert "declares no IMGZOO_API" in reasons["noapi"]
    assert "belongs to imgzoo" in reasons["archs-cnn"]


def test_strict_mode_raises_and_names_the_plugin(site):
    site.add("importerror-zoo", "importerror", "import there_is_no_such_module")
    with pytest.raises(PluginError, match=r"importerror \(importerror-zoo 1.0\): ModuleNotFoundError"):
        site.manager(IMGZOO_STRICT="1")
    done = site.run("list", IMGZOO_STRICT="1")
    assert (done.returncode, done.stdout) == (1, "")
    for recovery in (["--help"], ["--version"], ["plugins"], ["doctor", "names"]):
        assert site.run(*recovery, IMGZOO_STRICT="1").returncode == 0, recovery


@pytest.mark.parametrize("hook", ["imgzoo_models", "imgzoo_weights"])
def test_strict_mode_raises_for_a_hook_that_fails(site, hook):
    site.add("late-zoo", "late", f"@hookimpl\ndef {hook}(): raise RuntimeError('late')")
    with pytest.raises(PluginError, match="late"):
        fill(site.manager(IMGZOO_STRICT="1"), "models")


def test_trouble_is_told_once_in_one_line(site, caplog):
    site.add("a-zoo", "a", "raise RuntimeError('line one\\n\\x1b[31mline two')")
    host = site.manager()
    with caplog.at_level(logging.WARNING):
        host.report()
        host.report()
    assert [record.getMessage() for record in caplog.records] == [
        "imgzoo: 1 plugin has trouble: a (a-zoo 1.0): RuntimeError: line one line two. Run 'imgzoo doctor'."
    ]


def test_a_failed_hook_loses_its_kind_only_whatever_the_order(site):
    source = MODEL.format(name="net", package="p") + "@hookimpl\ndef imgzoo_losses(): raise RuntimeError('no')\n"
    site.add("half-zoo", "half", source)
    for order in (["models", "losses"], ["losses", "models"]):
        host = site.manager()
        counts = {kind: len(Registry(kind, host).names()) for kind in order}
        assert counts == {"models": 1, "losses": 0}
        assert next(plugin.state for plugin in host.plugins if plugin.name == "half") == "error"


def test_order_does_not_depend_on_the_path(site):
    for name in ("zebra", "ant", "mole"):
        site.add(f"{name}-zoo", name)
    host = site.manager()
    host_reversed = type(host)(reversed([*_folders(site)]), environ={})
    assert [p.name for p in host.plugins] == [p.name for p in host_reversed.plugins] == ["core", "ant", "mole", "zebra"]


def test_the_first_copy_on_the_path_wins(site):
    site.add("acme-zoo", "acme", version="2.0")
    other = type(site)(site.path.parent / "later")
    other.add("acme-zoo", "acme", version="1.0")
    from imgzoo.discovery.find import find_plugins

    found = find_plugins([*_folders(site), *_folders(other)])
    assert [(plugin.name, plugin.version) for plugin in found] == [("acme", "2.0")]


def _folders(site):
    from imgzoo.discovery.distributions import Folder

    return [Folder(str(path)) for path in sorted(site.path.glob("*.dist-info"))]


def test_the_quick_reader_finds_what_importlib_metadata_finds():
    from imgzoo.discovery.distributions import installed, library, name_and_version

    def named(distributions):
        return {name_and_version(dist) for dist in distributions} - {("", "")}

    assert named(installed()) == named(library().distributions())


def test_plugins_in_archives_on_the_path_are_found(tmp_path, monkeypatch):
    import zipfile

    from imgzoo.discovery.distributions import installed
    from imgzoo.discovery.find import find_plugins

    archive = tmp_path / "bundle.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped-1.0.dist-info/METADATA", "Name: zipped\nVersion: 1.0\n")
        file.writestr("zipped-1.0.dist-info/entry_points.txt", "[imgzoo.plugins]\nzipped = zipped._plugin\n")
    monkeypatch.syspath_prepend(str(archive))
    assert "zipped" in [plugin.name for plugin in find_plugins(installed())]


def test_what_a_plugin_prints_does_not_reach_stdout(site):
    site.add("chatty-zoo", "chatty", "print('hello from discovery')\n" + MODEL.format(name="quiet", package="p"))
    done = site.run("list", "quiet", "--json")
    assert [row["name"] for row in json.loads(done.stdout)] == ["quiet"]
    assert "hello from discovery" in done.stderr


def test_a_hook_that_a_plugin_adds_reaches_other_plugins(site):
    site.add(
        "host-zoo",
        "host",
        """
        import host_zoo.specs
        @hookimpl
        def imgzoo_addhooks(pluginmanager):
            pluginmanager.add_hookspecs(host_zoo.specs)
        """,
        files={
            "host_zoo/specs.py": """
                from imgzoo.plugin import hookspec
                @hookspec
                def imgzoo_host_event(step):
                    "Something happened."
            """
        },
    )
    site.add("guest-zoo", "a-guest", "@hookimpl\ndef imgzoo_host_event(step): return step + 1")
    site.add("rude-zoo", "a-rude", "@hookimpl\ndef imgzoo_host_event(wrong): return 0")
    host = site.manager()
    assert host.hooks.hook.imgzoo_host_event(step=1) == [2]
    states = {plugin.name: plugin.state for plugin in host.plugins}
    assert (states["host"], states["a-guest"], states["a-rude"]) == ("ok", "ok", "error")


def test_keyboard_interrupt_is_not_swallowed(site):
    site.add("slow-zoo", "slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        site.manager()


def test_an_upgrade_that_left_its_former_self_behind(site):
    """The newest of one name in a folder counts, by number; the doctor says what to do."""
    for version in ("9.0", "10.0", "2.0"):
        site.add("acme-zoo", "acme", MODEL.format(name="net", package="p"), version=version)
    rows = {row["name"]: row for row in json.loads(site.run("plugins", "--json").stdout)}
    assert rows["acme"]["version"] == "10.0" and rows["acme"]["state"] == "ok"
    found = json.loads(site.run("doctor", "metadata", "--json").stdout)
    told = [row["message"] for row in found if row["subject"] == "acme-zoo"]
    assert told and all("holds it twice" in said and "--force-reinstall acme-zoo" in said for said in told)


def test_a_plugin_in_a_namespace_package_of_two_places(site, monkeypatch):
    """Neither `acme_ns` nor `acme_ns.zoo` has an `__init__.py`; the catalog lies in the second place."""
    other = type(site)(site.path.parent / "other")
    points = "[imgzoo.plugins]\nspaced = acme_ns.zoo._plugin\n"
    source = HEADER + "@hookimpl\ndef imgzoo_models(): return Catalog.read(__package__)\n"
    site.add("spaced-zoo", "spaced", None, entry_points=points, files={"acme_ns/zoo/_plugin.py": source})
    catalog = {"family": "spaced_net", "target": "acme_ns.zoo.net:Net", "models": {"spaced_net": {}}}
    other.write("acme_ns/zoo/catalog/spaced_net.json", json.dumps(catalog))
    monkeypatch.syspath_prepend(str(other.path))
    host = site.manager()
    assert host.named("spaced")[0].reason == "" and fill(host, "models").names() == ["spaced_net"]


def test_a_catalog_in_an_archive_is_one_sentence(tmp_path, site):
    import zipfile

    archive = tmp_path / "bundle.zip"
    source = HEADER + "@hookimpl\ndef imgzoo_models(): return Catalog.read(__package__)\n"
    with zipfile.ZipFile(archive, "w") as file:
        for name, text in (
            ("zipped-1.0.dist-info/METADATA", "Name: zipped\nVersion: 1.0\n"),
            ("zipped-1.0.dist-info/entry_points.txt", "[imgzoo.plugins]\nzipped = zipped._plugin\n"),
            ("zipped/__init__.py", ""), ("zipped/_plugin.py", source), ("zipped/catalog/net.json", "{}"),
        ):  # fmt: skip
            file.writestr(name, text)
    path = f"{archive}:{site.environ()['PYTHONPATH']}"
    rows = {row["name"]: row for row in json.loads(site.run("plugins", "--json", PYTHONPATH=path).stdout)}
    assert rows["zipped"]["state"] == "error"
    assert f"zipped lies in {archive}" in rows["zipped"]["reason"] and "pip install" in rows["zipped"]["reason"]
