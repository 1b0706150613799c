"""A fixture for the tests of a plugin; `pytest_plugins = ["imgzoo.testing.fixtures"]` in `conftest.py` brings it.

def test_my_loss(plugin_tester):
    plugin_tester(_plugin).check("loss:acme")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from imgzoo.discovery.manager import Manager, set_manager
from imgzoo.errors import UnknownNameError
from imgzoo.registry import register
from imgzoo.specs import NOTHING

from .kit import USUAL, iter_checks, run
from .outcome import CheckResult


class PluginTester:
    """A plugin that is there for one test, by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def check(
        self, *subjects: str, tiers: Sequence[str] = USUAL, examples: Mapping[str, Any] = NOTHING
    ) -> list[CheckResult]:
        """Run the checks of everything it brings, or of `subjects` (`loss:acme`, `model:acme_net`, `plugin:acme`).

        `examples` as for `iter_checks`. Raises `AssertionError` for the first that fails, `UnknownNameError` for a
        subject that the plugin does not bring.
        """
        rows = [(str(row[0]), *row) for row in iter_checks(self.name, tiers=tiers, examples=examples)]
        missing = sorted(set(subjects) - {subject for subject, *_ in rows})
        if missing:
            there = ", ".join(dict.fromkeys(subject for subject, *_ in rows))
            raise UnknownNameError(f"plugin '{self.name}' brings no {missing[0]}; there are {there}")
        results = []
        for subject, item, check in rows:
            if not subjects or subject in subjects:
                results.append(run(item, check, NOTHING))
                if results[-1].status == "failed":
                    raise AssertionError(f"{subject} fails {check.name}: {results[-1].message}")
        return results


@pytest.fixture
def plugin_tester() -> Iterator[Callable[..., PluginTester]]:
    """`plugin_tester(module)`: a module or object with hooks, registered for one test where it is not installed."""
    host = Manager()
    before = set_manager(host)

    def use(plugin: Any, name: str = "tested") -> PluginTester:
        installed = host.hooks.get_name(plugin)
        if installed is None:
            register(plugin, name)
        return PluginTester(installed or name)

    yield use
    set_manager(before)
