"""Each check of the doctor finds the trouble it is meant for, and nothing in a sound installation."""

from __future__ import annotations

import json

import pytest

from imgzoo.discovery.doctor import examine
from imgzoo.errors import WeightsError

SOUND = "@hookimpl\ndef imgzoo_models(): return [ModelSpec('net', 'sound_zoo.net:Net')]"


def trouble(site, check: str, level: str = "", **environ) -> list[tuple[str, str]]:
    """(subject, message) of what a check says about the plugins of the folder."""
    found = examine(site.manager(**environ))
    return [(row.subject, row.message) for row in found if row.check == check and row.level == (level or row.level)]


def test_a_sound_plugin_is_no_trouble(site):
    site.add("sound-zoo", "sound", SOUND, files={"sound_zoo/net.py": "Net = 1"})
    found = examine(site.manager(), deep=True)
    assert {row.level for row in found if row.subject in ("sound", "")} == {"ok"}


def test_unreadable_metadata_of_any_distribution(site):
    site.add("harmful", entry_points="[console_scripts]\nno equals sign\n", source=None)
    site.add("half-gone", "half-gone", metadata="")
    said = trouble(site, "metadata", "warning")
    assert any("entry_points.txt is malformed" in message and subject == "harmful" for subject, message in said)
    assert any("half_gone-1.0.dist-info has no METADATA" in message for _, message in said)


def test_an_editable_install_whose_folder_is_gone(site):
    site.add("moved-zoo", "moved")
    origin = {"url": "file:///there/is%20no/such/folder", "dir_info": {"editable": True}}
    site.write("moved_zoo-1.0.dist-info/direct_url.json", json.dumps(origin))
    assert trouble(site, "editables", "error") == [
        ("moved", "it is an editable install of /there/is no/such/folder, which is gone: pip uninstall moved-zoo")
    ]


@pytest.mark.parametrize(
    ("requirement", "said"),
    [
        ("imgzoo-core>=0.1", ""),
        ("imgzoo-core>=99", "it needs imgzoo-core>=99, there is"),
        ("imgzoo-nothing>=1", "it needs imgzoo-nothing: pip install 'imgzoo-nothing>=1'"),
        ("imgzoo-nothing; extra == 'all'", ""),
        ("unrelated-thing>=99", ""),
        ("imgzoo core ?", "its requirement 'imgzoo core ?' cannot be read"),
    ],
)
def test_requirements_on_imgzoo(site, requirement, said):
    site.add("old-zoo", "old", metadata=f"Name: old-zoo\nVersion: 1.0\nRequires-Dist: {requirement}\n")
    messages = [message for subject, message in trouble(site, "requirements") if subject == "old"]
    assert [message[: len(said)] for message in messages] == ([said] if said else [])


def test_names_that_are_shadowed_or_ambiguous(site):
    both = "@hookimpl\ndef imgzoo_losses(): return [ComponentSpec('both', 'm:it')]\n"
    list_ = "@hookimpl\ndef imgzoo_commands(): return [CommandSpec('list', 'm:it')]\n"
    orphan = "@hookimpl\ndef imgzoo_weights(): return [WeightSpec('t', 'nobody', url='https://x')]\n"
    site.add("a-zoo", "a", both + list_ + orphan)
    site.add("b-zoo", "b", both)
    assert sorted(trouble(site, "names", "warning")) == [
        ("a", "command 'list' means core's: say a/list"),
        ("a", "it brings weights for 'nobody', which no plugin or more than one brings"),
        ("a", "loss 'both' is ambiguous: say a/both"),
        ("b", "loss 'both' is ambiguous: say b/both"),
    ]


def test_hooks_that_do_not_exist(site):
    site.add("typo-zoo", "typo", "@hookimpl\ndef imgzoo_modles(): return []")
    site.add("extra-zoo", "extra", "@hookimpl(optionalhook=True)\ndef imgzoo_train_event(): return 1")
    assert trouble(site, "hooks", "warning") == [("typo", "there is no hook 'imgzoo_modles': it is never called")]


def test_catalogs_of_the_wrong_shape(site):
    data = {"family": "f", "target": "a.b:C", "models": {"net": {"weights": {"t": {"license": "free", "hue": 1}}}}}
    source = "@hookimpl\ndef imgzoo_models(): return Catalog.read(__package__)"
    site.add("shape-zoo", "shape", source, files={"shape_zoo/catalog/f.json": json.dumps(data)})
    assert trouble(site, "catalogs", "warning") == [
        ("shape", 'f.json: net.t: license "free" is not an SPDX id or LicenseRef-...'),
        ("shape", "f.json: net.t: unknown cell 'hue'"),
    ]


def test_targets_that_are_not_there(site):
    source = """
        @hookimpl
        def imgzoo_losses():
            return [ComponentSpec("gone", "gone_zoo.nowhere:f"), ComponentSpec("there", "gone_zoo.sub.mod:f"),
                    ComponentSpec("wrong", "gone_zoo.sub.mod:typo")]
    """
    files = {"gone_zoo/sub/__init__.py": "raise AssertionError('imported')", "gone_zoo/sub/mod.py": "f = 1"}
    site.add("gone-zoo", "gone", source, files=files)
    assert trouble(site, "targets", "error") == [("gone", "gone: there is no module gone_zoo.nowhere")]
    site.write("gone_zoo/sub/__init__.py", "")
    deep = [
        row.message for row in examine(site.manager(), deep=True) if row.check == "targets" and row.level == "error"
    ]
    assert len(deep) == 2
    assert "module 'gone_zoo.sub.mod' has no attribute 'typo'" in deep[1]


def test_slow_discovery(site):
    site.add("slow-zoo", "slow", "import time\nend = time.process_time() + 0.15\nwhile time.process_time() < end: pass")
    ((subject, message),) = trouble(site, "plugins", "warning")
    assert subject == "slow" and "CPU time, more than 100" in message


def test_checks_of_plugins_run_and_a_check_that_dies_is_an_error(site):
    source = """
        @hookimpl
        def imgzoo_health_checks():
            return [HealthCheck("fuel", "well_zoo.checks:fuel"), HealthCheck("dies", "well_zoo.checks:dies")]
    """
    checks = "def fuel():\n    yield 'ok', 'full'\n    yield 'warning', 'old'\ndef dies():\n    raise SystemExit(3)\n"
    site.add("well-zoo", "well", source, files={"well_zoo/checks.py": checks})
    assert trouble(site, "fuel") == [("well", "full"), ("well", "old")]
    assert trouble(site, "dies", "error") == [("", "the check itself failed: SystemExit: 3")]


def test_names_choose_checks_or_plugins(site):
    site.add("bad-zoo", "bad", "raise RuntimeError('no')")
    done = site.run("doctor", "bad", "--json")
    rows = json.loads(done.stdout)
    assert done.returncode == 1
    assert [(row["check"], row["subject"], row["level"]) for row in rows] == [("plugins", "bad", "error")]
    assert site.run("doctor", "hooks").returncode == 0


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    from imgzoo.discovery.doctor import check_cache

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "new" / "hub"))
    assert [level for level, _ in check_cache()] == ["ok"]
    monkeypatch.setattr("os.access", lambda path, mode: False)
    ((level, message),) = check_cache()
    assert level == "error" and f"{tmp_path} cannot be written: set HF_HOME" in message


def test_a_target_that_cannot_be_loaded_names_its_plugin(site):
    from imgzoo.errors import PluginLoadError
    from imgzoo.registry import Registry

    site.add("late-zoo", "late", "@hookimpl\ndef imgzoo_losses(): return [ComponentSpec('late', 'late_zoo.mod:f')]",
             files={"late_zoo/mod.py": "import there_is_no_such_module"})  # fmt: skip
    with pytest.raises(PluginLoadError, match=r"plugin 'late' cannot load late_zoo.mod:f: ModuleNotFoundError"):
        Registry("losses", site.manager()).resolve("late").load()
    assert not issubclass(PluginLoadError, WeightsError)
