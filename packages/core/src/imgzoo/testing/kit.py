"""How checks are found, run and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from imgzoo.errors import UnknownNameError
from imgzoo.specs import NOTHING

from .outcome import Check, CheckResult, SkipCheck

TIERS = ("static", "model", "weights")


def iter_checks(
    plugin: str, *, tiers: Sequence[str] = TIERS[:2], sample: int | None = None
) -> Iterator[tuple[Any, Check]]:
    """Every (subject, check) of a plugin: the plugin itself, then its models, or `sample` of them spread evenly."""
    from imgzoo.registry import plugins, registry

    infos = [info for info in plugins() if info.name == plugin]
    if not infos:
        known = ", ".join(sorted(info.name for info in plugins()))
        raise UnknownNameError(f"there is no plugin '{plugin}'; installed are {known}")
    if "static" in tiers:
        from .static import CHECKS as static_checks

        for check in static_checks:
            yield infos[0], check
    specs = [spec for spec in registry("models").specs() if spec.plugin == plugin]
    if sample is not None and sample < len(specs):
        specs = [specs[i * len(specs) // sample] for i in range(sample)]
    for spec in specs:
        yield from model_checks(spec, tiers)


def model_checks(
    spec: Any, tiers: Sequence[str] = ("model",), options: Mapping[str, Any] = NOTHING
) -> Iterator[tuple[Any, Check]]:
    """Every (subject, check) of one model, built with constructor `options` that make it smaller."""
    if "model" in tiers:
        from .capability import CHECKS as capability_checks
        from .model import CHECKS, ModelSubject

        for check in (*CHECKS, *capability_checks):
            yield ModelSubject(spec, options), check
    if "weights" in tiers:
        from .weights import CHECKS as weights_checks
        from .weights import WeightsSubject

        for weights in spec.weights:
            for check in weights_checks:
                yield WeightsSubject(spec, weights), check


def run(subject: Any, check: Check, expected_failures: Mapping[str, str]) -> CheckResult:
    """Run one check and catch whatever it raises."""
    key = f"{subject}:{check.name}"
    try:
        check(subject)
    except SkipCheck as skip:
        return CheckResult(check.name, str(subject), "skipped", str(skip))
    except Exception as error:
        if key in expected_failures:
            return CheckResult(check.name, str(subject), "expected", expected_failures[key])
        first = (str(error).strip().split("\n") or [""])[0][:300]
        return CheckResult(check.name, str(subject), "failed", f"{type(error).__name__}: {first}")
    if key in expected_failures:
        return CheckResult(check.name, str(subject), "failed", "passes, though a failure is expected; remove the entry")
    return CheckResult(check.name, str(subject), "passed")


def check_plugin(
    plugin: str,
    *,
    tiers: Sequence[str] = TIERS[:2],
    sample: int | None = None,
    expected_failures: Mapping[str, str] | None = None,
    callback: Callable[[CheckResult], None] | None = None,
) -> list[CheckResult]:
    """Run the kit on a plugin; never raises for what a check finds. `callback` sees each result as it comes.

    `expected_failures` maps `subject:check` (`model:acme_net:script`) to the reason.
    """
    results = []
    for subject, check in iter_checks(plugin, tiers=tiers, sample=sample):
        result = run(subject, check, expected_failures or {})
        results.append(result)
        if callback is not None:
            callback(result)
    return results


def check_model(name: str, *, expected_failures: Mapping[str, str] | None = None) -> list[CheckResult]:
    """Run the model tier on one registered model."""
    from imgzoo.models import get_spec

    return [run(subject, check, expected_failures or {}) for subject, check in model_checks(get_spec(name))]


def parametrize_with_checks(
    plugin: str,
    *,
    tiers: Sequence[str] = TIERS[:2],
    sample: int | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Any:
    """A `pytest.mark.parametrize` over (subject, check); what is skipped says why, expected failures are strict."""
    import pytest

    expected = expected_failures or {}
    rows = []
    for subject, check in iter_checks(plugin, tiers=tiers, sample=sample):
        key = f"{subject}:{check.name}"
        marks = [pytest.mark.xfail(reason=expected[key], strict=True)] if key in expected else []
        rows.append(pytest.param(subject, _skipping(check), id=key, marks=marks))
    return pytest.mark.parametrize("subject, check", rows)


def _skipping(check: Check) -> Callable[[Any], None]:
    """The check with its own way of skipping made pytest's."""

    def call(subject: Any) -> None:
        import pytest

        try:
            check(subject)
        except SkipCheck as skip:
            pytest.skip(str(skip))

    return call
