"""The fixture that authors test with: what is wrong is an error that names it, what is not there too."""

from types import SimpleNamespace

import pytest

from imgzoo.errors import UnknownNameError
from imgzoo.plugin import CommandSpec, HealthCheck, hookimpl

pytest_plugins = ["imgzoo.testing.fixtures"]


def works():
    yield "ok", "well"


def brings(target):
    @hookimpl
    def imgzoo_health_checks():
        return [HealthCheck("fuel", f"{__name__}:{target}")]

    @hookimpl
    def imgzoo_commands():
        return [CommandSpec("tested-command", "imgzoo.cli.check:command")]

    return SimpleNamespace(imgzoo_health_checks=imgzoo_health_checks, imgzoo_commands=imgzoo_commands)


def test_any_kind_of_component_is_checked_by_name(plugin_tester):
    results = plugin_tester(brings("works")).check("health-check:fuel", "command:tested-command")
    assert {(row.subject, row.name, row.status) for row in results} == {
        ("health-check:fuel", "target_loads", "passed"),
        ("health-check:fuel", "yields_findings", "passed"),
        ("command:tested-command", "target_loads", "passed"),
        ("command:tested-command", "is_a_command", "passed"),
    }


def test_what_fails_is_named(plugin_tester):
    tester = plugin_tester(brings("gone"))
    with pytest.raises(AssertionError, match=r"health-check:fuel fails target_loads: PluginLoadError.*gone"):
        tester.check("health-check:fuel")
    with pytest.raises(UnknownNameError, match="brings no loss:fuel; there are plugin:tested, command:"):
        tester.check("loss:fuel")


def test_the_plugin_is_gone_after_the_test(plugin_tester):
    from imgzoo.registry import registry

    assert "fuel" not in registry("health_checks")
