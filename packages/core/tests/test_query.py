"""A search answers what a plain loop over the JSON files would."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgzoo.discovery import manager
from imgzoo.errors import UnknownNameError, UsageError
from imgzoo.query import COLUMNS, Query, search
from imgzoo.specs import ModelSpec, WeightSpec

LICENSES = ["Apache-2.0", "MIT", "CC-BY-NC-4.0", "LicenseRef-unknown", ""]
FAMILIES = ["alpha", "beta"]


def family(name: str, seed: int) -> tuple[dict, dict]:
    """A catalog file and its results: sizes, licenses and figures vary, and some are missing."""
    models, results = {}, {}
    for i in range(12):
        k = seed * 17 + i * 7
        model = f"{name}{'_big' if i % 3 == 0 else ''}{i}"
        weights = {
            f"t{j}{'_ft' if (k + j) % 2 else ''}": {
                "license": LICENSES[(k + j) % 5] or "LicenseRef-none",
                "input_size": 224 if j % 2 else 256,
                **({"hf_hub_id": ""} if (k + j) % 4 == 0 else {}),
            }
            for j in range(k % 4)
        }
        models[model] = {"weights": weights, "capabilities": ["compile", *(["script"] if i % 2 else [])]}
        if i % 5 != 4:
            row = {
                "params": (k * 37 % 90 + 1) * 1_000_000,
                "cost": [[224, k % 11 + 0.5, 3.0], [256, k % 11 + 2.5, 4.0]],
            }
            scores = {
                tag: {"imagenet": [70 + (k * 3 + len(tag)) % 15, 90.0, 224, 0.9, "bicubic"]}
                for tag in weights
                if len(tag) % 3
            }
            results[model] = row | ({"weights": scores} if scores else {})
    return {"family": name, "target": "pkg.mod:Net", "models": models}, results


DATA = {name: family(name, seed) for seed, name in enumerate(FAMILIES)}


@pytest.fixture(scope="module")
def zoo(module_site):
    """Two plugins with a family each, and a third that adds weights to one of them."""
    for name, (catalog, results) in DATA.items():
        source = "@hookimpl\ndef imgzoo_models(): return Catalog.read(__package__)"
        files = {
            f"{name}_query_zoo/catalog/{name}.json": json.dumps(catalog),
            f"{name}_query_zoo/catalog/results/{name}.json": json.dumps(results),
        }
        module_site.add(f"{name}-query-zoo", name, source, files=files)
    module_site.add(
        "extra-query-zoo",
        "extra",
        "@hookimpl\ndef imgzoo_weights(): return [WeightSpec('x', 'alpha1', url='https://e/x', license='MIT')]",
    )
    before = manager.set_manager(module_site.manager())
    yield
    manager.set_manager(before)


def rows_of_everything(of_weights: bool) -> list[dict]:
    """Every row from the raw data, without the code under test."""
    rows = []
    for name, (catalog, results) in DATA.items():
        for model, entry in catalog["models"].items():
            known = results.get(model, {})
            cells = [(tag, row, name) for tag, row in entry["weights"].items() if row.get("hf_hub_id") != ""]
            if model == "alpha1":
                cells.append(("x", {"license": "MIT", "input_size": 224}, "extra"))
            costs = {size: gmacs for size, gmacs, _ in known.get("cost", [])}
            base = {"model": model, "family": name, "params": known.get("params")}
            if of_weights:
                for tag, row, plugin in cells:
                    score = known.get("weights", {}).get(tag, {}).get("imagenet")
                    facts = {"name": f"{model}.{tag}", "tag": tag, "plugin": plugin, "license": row["license"]}
                    figures = {"gmacs": costs.get(row["input_size"]), "top1": score and score[0]}
                    rows.append(base | facts | figures)
            else:
                first = next(iter([*entry["weights"].values(), *(row for _, row, _ in cells)]), None)
                size = first["input_size"] if first else 224
                rows.append(base | {"name": model, "plugin": name, "gmacs": costs.get(size)})
    return rows


def brute_force(query: Query) -> set[str]:
    dotted = any("." in pattern for pattern in (*query.patterns, *query.exclude))
    of_weights = bool(dotted or query.tag or query.license or query.pretrained or query.min_top1 is not None)
    of_weights = of_weights or query.sort.lstrip("-") in ("top1", "license")
    kept = set()
    for row in rows_of_everything(of_weights):

        def named(pattern, row=row):
            return fnmatchcase(row["name"] if "." in pattern else row["model"], pattern)

        def within(key, low, high, row=row):
            value = row.get(key)
            known = value is not None
            return (low is None or (known and value >= low)) and (high is None or (known and value <= high))

        license_fits = {
            "": True,
            "permissive": row.get("license") in ("Apache-2.0", "MIT"),
        }.get(query.license, row.get("license", "").lower() == query.license.lower())
        if (
            (not query.patterns or any(map(named, query.patterns)))
            and not any(map(named, query.exclude))
            and (not query.plugin or row["plugin"] == query.plugin)
            and (not query.family or fnmatchcase(row["family"], query.family))
            and (not query.tag or fnmatchcase(row["tag"], query.tag))
            and license_fits
            and within("params", query.min_params, query.max_params)
            and within("gmacs", query.min_gmacs, query.max_gmacs)
            and within("top1", query.min_top1, None)
        ):
            kept.add(row["name"])
    return kept


GLOBS = st.sampled_from(["alpha*", "*big*", "beta1", "*1*", "*.t*", "alpha[0-3]", "*.x", "*_ft"])
QUERIES = st.builds(
    Query,
    patterns=st.lists(GLOBS, max_size=2).map(tuple),
    exclude=st.lists(GLOBS, max_size=1).map(tuple),
    plugin=st.sampled_from(["", "", "alpha", "beta", "extra"]),
    family=st.sampled_from(["", "", "alpha", "b*"]),
    tag=st.sampled_from(["", "", "t0*", "*_ft", "x"]),
    license=st.sampled_from(["", "", "permissive", "mit", "CC-BY-NC-4.0"]),
    pretrained=st.booleans(),
    min_params=st.sampled_from([None, None, 20e6]),
    max_params=st.sampled_from([None, None, 60e6]),
    min_gmacs=st.sampled_from([None, None, 2.5]),
    max_gmacs=st.sampled_from([None, None, 8.0]),
    min_top1=st.sampled_from([None, None, 75.0]),
    pareto=st.just(""),
    can=st.just(()),
    columns=st.just(()),
    sort=st.sampled_from(["", "name", "-params", "gmacs", "-top1", "license", "family"]),
)


@given(query=QUERIES)
@settings(max_examples=400, deadline=None)
def test_search_equals_brute_force(zoo, query):
    rows = search(query)
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
    assert set(names) == brute_force(query)


@given(query=QUERIES.filter(lambda query: query.sort))
@settings(max_examples=200, deadline=None)
def test_order_is_by_the_column_with_the_unknown_last(zoo, query):
    column = query.sort.lstrip("-")
    rows = search(query)
    if column == "name":
        return
    values = [COLUMNS[column](row) for row in rows]
    known = [value for value in values if value is not None]
    assert values[: len(known)] == known
    assert known == sorted(known, reverse=query.sort.startswith("-"))


@given(query=QUERIES, cost=st.sampled_from(["gmacs", "params", "size"]))
@settings(max_examples=200, deadline=None)
def test_the_front_is_what_no_other_row_beats(zoo, query, cost):
    everything = search(query._replace(pretrained=True, sort="", columns=("params", "gmacs", "top1")))
    points = {row.name: (COLUMNS[cost](row), COLUMNS["top1"](row)) for row in everything}
    points = {name: point for name, point in points.items() if None not in point}
    front = {
        name
        for name, (price, gain) in points.items()
        if not any(p <= price and g >= gain and (p, g) != (price, gain) for p, g in points.values())
    }
    found = search(query._replace(pretrained=True, sort="", pareto=cost))
    assert {row.name for row in found} == front


def test_a_search_of_names_reads_no_results(zoo, monkeypatch):
    monkeypatch.setattr("imgzoo.query.read_results", lambda *_: pytest.fail("results were read"))
    assert search(Query(patterns=("alpha*",), license="permissive", pretrained=True))


def test_a_slash_in_a_pattern_names_the_plugin(zoo):
    assert {row.plugin for row in search(Query(patterns=("beta/*",)))} == {"beta"}
    assert [row.name for row in search(Query(patterns=("extra/*.*",)))] == ["alpha1.x"]


def test_unknown_columns_and_plugins_are_errors(zoo):
    with pytest.raises(UsageError, match="there is no column 'speed'; columns are name, plugin"):
        search(Query(sort="speed"))
    with pytest.raises(UnknownNameError, match="there is no plugin 'gamma'; there are core, alpha"):
        search(Query(plugin="gamma"))
    with pytest.raises(UsageError, match="drawn over params, gmacs"):
        search(Query(pareto="license"))


def test_a_model_without_a_family_or_figures_is_found_and_has_unknown_columns(zoo):
    from imgzoo.query import Row

    row = Row("net", ModelSpec("net", "a.b:c"), None, {})
    assert [COLUMNS[name](row) for name in ("params", "gmacs", "top1", "family")] == [None] * 4
    row = row._replace(weights=WeightSpec("t", "net"))
    assert COLUMNS["top1"](row) is None


@pytest.mark.parametrize("can", [(), ("compile",), ("compile", "script"), ("fx",)])
def test_capabilities_are_asked_for_together(zoo, can):
    everything = {row.name: row.spec.capabilities for row in search(Query())}
    found = {row.name for row in search(Query(can=can))}
    assert found == {name for name, known in everything.items() if known.issuperset(can)}
    assert {len(known) for known in everything.values()} == {1, 2}


def test_an_unknown_capability_is_an_error(zoo):
    with pytest.raises(UsageError, match="no capability 'fly'; there are bf16"):
        search(Query(can=("fly",)))
