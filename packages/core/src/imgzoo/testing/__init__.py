"""The conformance kit: named checks of a plugin, for the command line, for pytest and as plain calls.

from imgzoo.testing import parametrize_with_checks

@parametrize_with_checks("acme", expected_failures={"model:acme_net:script": "a loop depends on data"})
def test_conformance(subject, check):
    check(subject)
"""

from .kit import check_model, check_plugin, iter_checks, parametrize_with_checks
from .outcome import Check, CheckResult, SkipCheck

__all__ = [
    "Check",
    "CheckResult",
    "SkipCheck",
    "check_model",
    "check_plugin",
    "iter_checks",
    "parametrize_with_checks",
]
