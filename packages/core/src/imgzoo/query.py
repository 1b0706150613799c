"""Search the catalog: filter, sort and draw the Pareto front over what is known of models and weights. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from .catalog.results import read_results
from .errors import UnknownNameError, UsageError
from .licenses import is_permissive, spdx
from .registry import Registry, registry
from .specs import CAPABILITIES, ModelSpec, WeightSpec
from .text import natural

SCORES = ("imagenet", "real", "v2", "a", "r", "sketch")


class Row(NamedTuple):
    """One answer: an architecture, or one of its published weights."""

    name: str
    spec: ModelSpec
    weights: WeightSpec | None
    results: dict[str, Any]

    @property
    def plugin(self) -> str:
        """Who brings these weights, or the architecture."""
        return (self.weights.plugin if self.weights else "") or self.spec.plugin

    def cost(self, column: int) -> float | None:
        """A column of the cost table at the size these weights (or the default ones) were trained at."""
        recipe = self.weights or next(iter(self.spec.weights), None)
        size = recipe.input_size[-1] if recipe else 224
        return next((row[column] for row in self.results.get("cost", ()) if row[0] == size), None)

    def score(self, dataset: str, column: int = 0) -> float | None:
        """Published accuracy in percent of these weights: top-1 is column 0, top-5 column 1."""
        if self.weights is None or self.plugin != self.spec.plugin:
            return None  # the figures are of the weights that came with the architecture
        scores = self.results.get("weights", {}).get(self.weights.tag, {})
        return scores[dataset][column] if dataset in scores else None


def _of_weights(field: str) -> Callable[[Row], Any]:
    def value(row: Row) -> Any:
        return getattr(row.weights, field) if row.weights else None

    return value


def _score(dataset: str, column: int = 0) -> Callable[[Row], Any]:
    return lambda row: row.score(dataset, column)


def _size(row: Row) -> int | None:
    recipe = row.weights or next(iter(row.spec.weights), None)
    return recipe.input_size[-1] if recipe else None


COLUMNS: dict[str, Callable[[Row], Any]] = {
    "plugin": lambda row: row.plugin,
    "family": lambda row: row.spec.family or None,
    "tag": _of_weights("tag"),
    "license": _of_weights("license"),
    "classes": _of_weights("num_classes"),
    "size": _size,
    "params": lambda row: row.results.get("params"),
    "gmacs": lambda row: row.cost(1),
    "macts": lambda row: row.cost(2),
    "top1": _score("imagenet"),
    "top5": _score("imagenet", 1),
    **{name: _score(name) for name in SCORES[1:]},
}
"""What is known of a row, None where it is not; `real`, `v2`, `a`, `r`, `sketch` are top-1 on those test sets."""

RESULTS = ("params", "gmacs", "macts", "top1", "top5", *SCORES[1:])
OF_WEIGHTS = ("tag", "license", "classes", "top1", "top5", *SCORES[1:])
COSTS = ("params", "gmacs", "macts", "size")


class Query(NamedTuple):
    """What to keep and in which order. A bound drops rows whose value is unknown."""

    patterns: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    plugin: str = ""
    family: str = ""
    tag: str = ""
    license: str = ""
    """An SPDX id, or `permissive`."""
    pretrained: bool = False
    min_params: float | None = None
    max_params: float | None = None
    min_gmacs: float | None = None
    max_gmacs: float | None = None
    min_top1: float | None = None
    sort: str = ""
    """A column, ascending; `-column` for descending. Rows without a value come last."""
    pareto: str = ""
    """A cost column: keep rows that no other beats in both this cost and ImageNet top-1."""
    can: tuple[str, ...] = ()
    """Capabilities, all of which the architecture has: `compile`, `export`, ... ."""
    columns: tuple[str, ...] = ()
    """More columns that the caller is going to read."""

    @property
    def of_weights(self) -> bool:
        """Whether the rows are published weights (`name.tag`); otherwise they are architectures."""
        asked = self.tag or self.license or self.pretrained or self.pareto or self.min_top1 is not None
        dotted = any("." in pattern for pattern in (*self.patterns, *self.exclude))
        return bool(asked) or dotted or any(column in OF_WEIGHTS for column in self.reads)

    @property
    def reads(self) -> set[str]:
        """Columns that filters, order and caller look at."""
        names = {self.sort.removeprefix("-"), *self.columns}
        names |= {"params"} if self.min_params is not None or self.max_params is not None else set()
        names |= {"gmacs"} if self.min_gmacs is not None or self.max_gmacs is not None else set()
        names |= {"top1"} if self.min_top1 is not None else set()
        return (names | {self.pareto, "top1"} if self.pareto else names) - {"", "name"}


def search(query: Query) -> list[Row]:
    """Rows that fit the query; an unknown plugin, column or license is an error that says what there is."""
    _check(query)
    tests = _tests(query)
    rows = _rows(query, registry("models"))
    rows = [row for row in rows if all(test(row) for test in tests)] if tests else list(rows)
    if query.pareto:
        rows = pareto_front(rows, COLUMNS[query.pareto], COLUMNS["top1"])
    return sort_rows(rows, query.sort) if query.sort else rows


def _check(query: Query) -> None:
    for column in query.reads:
        if column not in COLUMNS:
            raise UsageError(f"there is no column '{column}'; columns are name, {', '.join(COLUMNS)}")
    if query.pareto and query.pareto not in COSTS:
        raise UsageError(f"a Pareto front is drawn over {', '.join(COSTS)}, not {query.pareto}")
    if query.plugin:
        plugin_names(query.plugin)
    if unknown := sorted({*query.can} - CAPABILITIES):
        known = ", ".join(sorted(CAPABILITIES))
        raise UsageError(f"there is no capability '{unknown[0]}'; there are {known}")


def plugin_names(name: str) -> set[str]:
    """Plugins that go by this name; none is an `UnknownNameError`."""
    plugins = registry("models").plugins
    found = {plugin.name for plugin in plugins.named(name)}
    if not found:
        known = ", ".join(plugin.name for plugin in plugins.plugins)
        raise UnknownNameError(f"there is no plugin '{name}'; there are {known}")
    return found


def _rows(query: Query, models: Registry) -> Iterable[Row]:
    """Every architecture, or every published weight, that the cheap filters keep."""
    plugins = plugin_names(query.plugin) if query.plugin else None
    known: dict[tuple[str, str], dict[str, Any]] = {}
    packages = {plugin.name: plugin.package for plugin in models.plugins.plugins}
    wants_results, of_weights = bool(query.reads & set(RESULTS)), query.of_weights
    for name, spec in models.listed().items():
        if query.family and not fnmatchcase(spec.family, query.family):
            continue
        results: dict[str, Any] = {}
        if wants_results and spec.family:
            key = (packages[spec.plugin], spec.family)
            if key not in known:
                known[key] = read_results(*key)
            results = known[key].get(spec.name, {})
        if of_weights:
            rows = [Row(f"{name}.{row.tag}", spec, row, results) for row in spec.weights if row.published]
        else:
            rows = [Row(name, spec, None, results)]
        yield from (row for row in rows if plugins is None or row.plugin in plugins)


def _tests(query: Query) -> list[Callable[[Row], bool]]:
    """What a row must pass, for the parts of the query that are set."""
    tests: list[Callable[[Row], bool]] = []
    if query.patterns:
        tests.append(lambda row: any(_named(row, pattern) for pattern in query.patterns))
    if query.exclude:
        tests.append(lambda row: not any(_named(row, pattern) for pattern in query.exclude))
    if query.tag:
        tests.append(lambda row: row.weights is not None and fnmatchcase(row.weights.tag, query.tag))
    if query.can:
        tests.append(lambda row: row.spec.capabilities.issuperset(query.can))
    if query.license:
        tests.append(lambda row: row.weights is not None and _licensed(row.weights.license, query.license))
    tests += _between("params", query.min_params, query.max_params)
    tests += _between("gmacs", query.min_gmacs, query.max_gmacs)
    return tests + _between("top1", query.min_top1, None)


def _named(row: Row, pattern: str) -> bool:
    """Whether a glob fits: against `name`, `name.tag` if it has a dot, with `plugin/` before it if it has a slash."""
    name = row.name
    if "." not in pattern and row.weights:
        name = name.removesuffix(f".{row.weights.tag}")
    if "/" in pattern and "/" not in name:
        name = f"{row.plugin}/{name}"
    return fnmatchcase(name, pattern)


def _licensed(license: str, wanted: str) -> bool:
    if wanted == "permissive":
        return is_permissive(license)
    return license == spdx(wanted)


def _between(column: str, low: float | None, high: float | None) -> list[Callable[[Row], bool]]:
    """The test of a bound on a column, if there is one; an unknown value fails it."""
    value = COLUMNS[column]

    def inside(row: Row) -> bool:
        x = value(row)
        return x is not None and (low is None or x >= low) and (high is None or x <= high)

    return [] if low is None and high is None else [inside]


def pareto_front(rows: list[Row], cost: Callable[[Row], Any], gain: Callable[[Row], Any]) -> list[Row]:
    """Rows that no other row beats: none has less cost and as much gain, or more gain for as little cost."""
    known = [row for row in rows if cost(row) is not None and gain(row) is not None]
    known.sort(key=lambda row: (cost(row), -gain(row)))
    front: list[Row] = []
    for row in known:
        tied = front and (cost(row), gain(row)) == (cost(front[-1]), gain(front[-1]))
        if not front or gain(row) > gain(front[-1]) or tied:
            front.append(row)
    return front


def sort_rows(rows: list[Row], key: str) -> list[Row]:
    """Rows by a column (`-column`: descending), equal ones by name; rows without a value last."""
    column, descending = key.removeprefix("-"), key.startswith("-")
    ordered = sorted(rows, key=lambda row: natural(row.name), reverse=descending and column == "name")
    if column == "name":
        return ordered
    value = COLUMNS[column]
    known = [row for row in ordered if value(row) is not None]
    known = sorted(known, key=value, reverse=descending)
    return known + [row for row in ordered if value(row) is None]
