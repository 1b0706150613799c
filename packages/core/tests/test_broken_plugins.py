"""Plugins that are wrong in one way each: the conformance kit names what is wrong with each; sound ones pass."""

import json
from pathlib import Path

import pytest
from broken_plugins import BROKEN, EXAMPLES, METADATA, SOUND, SPECS, net, one

from imgzoo.specs import CAPABILITIES
from imgzoo.testing import capability, check_plugin, iter_checks
from imgzoo.testing.kit import TIERS, USUAL, run

pytest.importorskip("imgzoo_train")


def install(site, plugin, parts):
    files = {"acme_zoo/parts.py": parts, "acme_zoo/py.typed": ""}
    site.add("acme-zoo", "acme", plugin, metadata=METADATA, files=files)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_named(site, use_plugins, monkeypatch, tmp_path, name):
    monkeypatch.setenv("IMGZOO_CACHE", str(tmp_path / "cache"))
    for switch in ("IMGZOO_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(switch, raising=False)
    case = BROKEN[name]
    install(site, case.plugin, case.parts)
    use_plugins(site.manager() if "resnet18" not in case.plugin else site.manager_beside_others())
    weights = case.subject.startswith("weights:")
    checks = iter_checks("acme", tiers=TIERS if weights else USUAL, examples=EXAMPLES)
    (wanted,) = [row for row in checks if (str(row[0]), row[1].name) == (case.subject, case.check)]
    result = run(*wanted, {})
    assert result.status == "failed" and case.words in result.message, result


@pytest.mark.parametrize("kind", [*SOUND, "models"])
def test_what_is_right_passes(site, use_plugins, kind):
    plugin, parts = net("pass") if kind == "models" else (one(kind, SPECS.get(kind, "ComponentSpec")), SOUND[kind])
    install(site, plugin, parts)
    use_plugins(site.manager())
    found = check_plugin("acme", examples=EXAMPLES)
    assert [row for row in found if row.status == "failed"] == []
    skipped = {row.name for row in found if row.status == "skipped"}
    assert skipped <= {"tables_follow_the_size", *CAPABILITIES}


def test_every_capability_has_its_check():
    assert {check.capability for check in capability.CHECKS} == CAPABILITIES


def test_a_model_that_ends_the_process_or_prints_does_not_fool_the_command(site):
    """The check in which the process ends has failed, the others are run; what is printed is no result."""
    plugin, parts = net("""
        def __init__(self, **options):
            super().__init__(**options)
            print('{"status": "passed"}', flush=True)
        def set_grad_checkpointing(self, enable=True):
            import os
            os._exit(0)
    """)
    install(site, plugin, parts)
    paths = {"PYTHONPATH": f"{site.environ()['PYTHONPATH']}:{Path(__file__).parent}"}
    done = site.run("check", "acme", "--json", **paths)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 1
    failed = {name: row["message"] for name, row in rows.items() if row["status"] == "failed"}
    assert failed == {"checkpointing_changes_nothing": "Ended: the process ended in it, with exit code 0"}
    assert rows["takes_other_sizes"]["status"] == "passed"  # which comes later


def test_the_command_tries_a_source_where_it_is_told_to(site):
    install(site, one("datasets"), SOUND["datasets"])
    for example, status in ((("--example", "dataset:acme=5"), "passed"), ((), "skipped")):
        rows = json.loads(site.run("check", "acme", "--json", *example).stdout)
        assert {row["status"] for row in rows if row["name"] == "samples_are_images"} == {status}
    assert site.run("check", "acme", "--example", "acme").returncode == 2
