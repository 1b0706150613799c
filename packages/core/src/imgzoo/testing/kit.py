"""How checks are found, run and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from imgzoo.errors import UnknownNameError
from imgzoo.guard import attempt
from imgzoo.specs import NOTHING
from imgzoo.text import told

from .outcome import Check, CheckResult, SkipCheck

TIERS = ("static", "component", "model", "weights")
USUAL = TIERS[:-1]
"""Without downloads."""


def iter_checks(
    plugin: str, *, tiers: Sequence[str] = USUAL, sample: int | None = None, examples: Mapping[str, Any] = NOTHING
) -> Iterator[tuple[Any, Check]]:
    """Every (subject, check) of a plugin: the plugin itself, its components, its models, weights it adds to others'.

    `sample` takes that many models only, spread evenly. `examples` says what a component needs to be tried:
    `{"dataset:acme": "location"}`, `{"loss:acme": {"alpha": 2}}`.
    """
    from imgzoo.registry import plugins, registry

    infos = [info for info in plugins() if info.name == plugin]
    if not infos:
        known = ", ".join(sorted(info.name for info in plugins()))
        raise UnknownNameError(f"there is no plugin '{plugin}'; installed are {known}")
    if "static" in tiers:
        from .static import CHECKS as static_checks

        for check in static_checks:
            yield infos[0], check
    if "component" in tiers:
        yield from _components(plugin, examples)
    specs = [spec for spec in registry("models").specs() if spec.plugin == plugin]
    if sample is not None and sample < len(specs):
        specs = [specs[i * len(specs) // sample] for i in range(sample)]
    for spec in specs:
        yield from model_checks(spec, tiers)
    if "weights" in tiers:
        for spec, weights in added_weights(plugin):
            yield from _weights_checks(spec, weights)


def _components(plugin: str, examples: Mapping[str, Any]) -> Iterator[tuple[Any, Check]]:
    from imgzoo.registry import registry

    from .component import CONTRACTS, ComponentSubject, component_checks

    for kind in CONTRACTS:
        for spec in registry(kind).specs():
            if spec.plugin == plugin:
                yield from component_checks(kind, spec, examples.get(str(ComponentSubject(kind, spec))))


def added_weights(plugin: str) -> list[tuple[Any, Any]]:
    """(model, weights) for each tag that a plugin adds to anyone's architecture."""
    from imgzoo.registry import registry

    return [pair for (owner, *_), pair in registry("models").added.by_plugin.items() if owner == plugin]


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
        for weights in spec.weights:
            if weights.plugin in ("", spec.plugin):
                yield from _weights_checks(spec, weights)


def _weights_checks(spec: Any, weights: Any) -> Iterator[tuple[Any, Check]]:
    from .weights import CHECKS, WeightsSubject

    for check in CHECKS:
        yield WeightsSubject(spec, weights), check


def run(subject: Any, check: Check, expected_failures: Mapping[str, str]) -> CheckResult:
    """Run one check and catch whatever it raises, `SystemExit` too."""
    _, error = attempt(lambda: check(subject))
    return judged(check.name, str(subject), error, expected_failures)


def judged(
    name: str, subject: str, error: BaseException | None, expected_failures: Mapping[str, str] = NOTHING
) -> CheckResult:
    """What came of a check that ended with `error`, or without any."""
    reason = expected_failures.get(f"{subject}:{name}")
    if isinstance(error, SkipCheck):
        return CheckResult(name, subject, "skipped", str(error))
    if error is not None and reason is not None:
        return CheckResult(name, subject, "expected", reason)
    if error is not None:
        return CheckResult(name, subject, "failed", told(error).strip().split("\n")[0][:300])
    if reason is not None:
        return CheckResult(name, subject, "failed", "passes, though a failure is expected; remove the entry")
    return CheckResult(name, subject, "passed")


def check_plugin(
    plugin: str,
    *,
    tiers: Sequence[str] = USUAL,
    sample: int | None = None,
    expected_failures: Mapping[str, str] | None = None,
    examples: Mapping[str, Any] = NOTHING,
    callback: Callable[[CheckResult], None] | None = None,
) -> list[CheckResult]:
    """Run the kit on a plugin; never raises for what a check finds. `callback` sees each result as it comes.

    `expected_failures` maps `subject:check` (`model:acme_net:script`) to the reason.
    """
    results = []
    for subject, check in iter_checks(plugin, tiers=tiers, sample=sample, examples=examples):
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
    tiers: Sequence[str] = USUAL,
    sample: int | None = None,
    expected_failures: Mapping[str, str] | None = None,
    examples: Mapping[str, Any] = NOTHING,
) -> Any:
    """A `pytest.mark.parametrize` over (subject, check); what is skipped says why, expected failures are strict."""
    import pytest

    expected = expected_failures or {}
    rows = []
    for subject, check in iter_checks(plugin, tiers=tiers, sample=sample, examples=examples):
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
