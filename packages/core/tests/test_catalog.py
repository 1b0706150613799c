"""Catalog files: three levels of defaults, one canonical text, and checks that find what is wrong."""

from __future__ import annotations

import copy
import json
import logging
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgzoo.catalog import (
    NORMALIZE,
    Catalog,
    catalog_files,
    cells,
    check,
    family_specs,
    format_catalog,
    format_results,
    read_json,
    read_results,
)
from imgzoo.licenses import is_known, is_permissive, spdx
from imgzoo.registry import registry
from imgzoo.rules import RULES
from imgzoo.specs import WeightSpec

FAMILY = {
    "family": "convnext",
    "target": "pkg.convnext:ConvNeXt",
    "paper": "2201.03545",
    "capabilities": ["export", "compile"],
    "defaults": {"license": "Apache-2.0", "crop_pct": 1.0, "normalize": "inception"},
    "aliases": {"convnext_tiny_old": "convnext_tiny.b"},
    "models": {
        "convnext_tiny": {
            "depths": [3, 3, 9, 3],
            "defaults": {"input_size": 256},
            "weights": {
                "a": {"crop_pct": 0.9, "test_input_size": [3, 288, 320]},
                "b": {"license": "MIT", "normalize": "imagenet", "input_size": 224, "kwargs": {"head_norm": False}},
                "c": {"hf_hub_id": "", "url": "https://example.org/c.pth", "paper": "2301.00808"},
            },
        },
        "convnext_plain": {"depths": [1], "target": "pkg.other:Net", "paper": "1234.56789", "capabilities": []},
    },
}


def test_a_weight_row_stands_on_model_family_and_field_defaults():
    tiny, plain = family_specs(FAMILY)
    a, b, c = tiny.weights
    assert (a.crop_pct, a.input_size, a.test_input_size) == (0.9, (3, 256, 256), (3, 288, 320))
    assert (a.license, a.mean, a.num_classes) == ("Apache-2.0", (0.5, 0.5, 0.5), 1000)
    assert (b.license, b.mean, b.input_size, b.crop_pct) == ("MIT", (0.485, 0.456, 0.406), (3, 224, 224), 1.0)
    assert b.kwargs == {"head_norm": False}
    assert (a.hf_hub_id, a.paper, c.hf_hub_id, c.paper) == ("timm/convnext_tiny.a", "2201.03545", "", "2301.00808")
    assert tiny.kwargs == {"depths": [3, 3, 9, 3]}
    assert tiny.aliases == {"convnext_tiny_old": "convnext_tiny.b"}
    assert tiny.capabilities == {"compile", "export"}
    assert (plain.target, plain.paper, plain.capabilities) == ("pkg.other:Net", "1234.56789", frozenset())
    assert list(plain.weights) == []


def test_canonical_text_is_one_row_a_line():
    assert format_catalog(FAMILY) == (
        '{"family": "convnext", "target": "pkg.convnext:ConvNeXt", "paper": "2201.03545", '
        '"capabilities": ["compile", "export"],\n'
        ' "defaults": {"license": "Apache-2.0", "crop_pct": 1.0, "normalize": "inception"},\n'
        ' "aliases": {\n'
        '  "convnext_tiny_old": "convnext_tiny.b"},\n'
        ' "models": {\n'
        '  "convnext_tiny": {"depths": [3, 3, 9, 3], "defaults": {"input_size": 256}, "weights": {\n'
        '   "a": {"test_input_size": [3, 288, 320], "crop_pct": 0.9},\n'
        '   "b": {"license": "MIT", "input_size": 224, "kwargs": {"head_norm": false}, "normalize": "imagenet"},\n'
        '   "c": {"url": "https://example.org/c.pth", "paper": "2301.00808"}}},\n'
        '  "convnext_plain": {"depths": [1], "target": "pkg.other:Net", "paper": "1234.56789", "capabilities": []}}}\n'
    )


def test_canonical_text_drops_what_is_derived():
    row = {"hf_hub_id": "timm/net.x", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "num_classes": 1000}
    data = {"family": "f", "target": "a.b:C", "models": {"net": {"target": "a.b:C", "weights": {"x": row}}}}
    assert format_catalog(data).endswith('"net": {"weights": {\n   "x": {}}}}}\n')


SIZE = st.one_of(st.integers(1, 999), st.tuples(st.just(3), st.integers(1, 999), st.integers(1, 999)).map(list))
CELLS = st.fixed_dictionaries(
    {},
    optional={
        "license": st.sampled_from(["Apache-2.0", "MIT", "CC-BY-NC-4.0", "LicenseRef-unknown"]),
        "input_size": SIZE,
        "test_input_size": SIZE,
        "crop_pct": st.sampled_from([0.875, 0.9, 1.0]),
        "num_classes": st.sampled_from([0, 1000, 21841]),
        "normalize": st.one_of(st.sampled_from(list(NORMALIZE)), st.just([[0.1, 0.2, 0.3], [1.0, 1.0, 1.0]])),
        "fixed_input_size": st.booleans(),
        "hf_hub_id": st.sampled_from(["", "timm/a.t", "timm/b.t", "org/x"]),
        "paper": st.sampled_from(["", "1", "2"]),
    },
)
MODELS = st.dictionaries(
    st.sampled_from(["a", "b"]),
    st.fixed_dictionaries(
        {"weights": st.dictionaries(st.sampled_from(["t", "u"]), CELLS)},
        optional={"depths": st.lists(st.integers()), "defaults": CELLS, "paper": st.sampled_from(["1", "2"])},
    ),
    min_size=1,
)


@given(st.fixed_dictionaries({"family": st.just("f"), "target": st.just("a.b:C"), "models": MODELS},
                             optional={"defaults": CELLS, "paper": st.sampled_from(["1", "2"])}))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_formatting_changes_no_spec_and_is_done_after_once(data):
    text = format_catalog(data)
    again = json.loads(text)
    assert list(family_specs(again)) == list(family_specs(data))
    assert format_catalog(again) == text


NETS = {"a": {"depths": [2, 2, 9, 3], "mlp_ratios": [4.0, 4.0, 4.0, 4.0], "dims": [96, 192, 384, 768], "norm": None,
              "paper": "1"},
        "b": {"like": "a", "dims": [1, 2, 3, 4], "weights": {"t": {"hf_hub_id": "me/b", "license": "MIT"}}},
        "c": {"like": "b", "act": "relu"}}  # fmt: skip


def test_a_row_like_another_says_what_differs():
    a, b, c = family_specs({"family": "f", "target": "m:N", "models": NETS})
    assert b.kwargs == {**a.kwargs, "dims": [1, 2, 3, 4]} and c.kwargs == {**b.kwargs, "act": "relu"}
    assert (a.paper, b.paper, len(b.weights), len(c.weights)) == ("1", "", 1, 0)


def test_rows_are_written_as_what_they_add_to_one_in_full():
    data = {"family": "f", "target": "m:N", "models": NETS}
    text = format_catalog(data)
    written = json.loads(text)["models"]
    assert written["b"] == {
        "like": "a",
        "dims": [1, 2, 3, 4],
        "weights": {"t": {"hf_hub_id": "me/b", "license": "MIT"}},
    }
    assert written["c"] == {"like": "a", "dims": [1, 2, 3, 4], "act": "relu"}
    assert format_catalog(json.loads(text)) == text
    assert list(family_specs(json.loads(text))) == list(family_specs(data))


@pytest.mark.parametrize("like", ["nobody", "b", "c"])
def test_a_row_can_only_be_like_one_before_it(like):
    data = {"family": "f", "target": "m:N", "models": {**NETS, "b": {**NETS["b"], "like": like}}}
    with pytest.raises(ValueError, match=f"b is like '{like}', which is no row before it"):
        list(family_specs(data))
    assert check(data) == [f"b is like '{like}', which is no row before it"]


def own_files():
    """Catalog files of imgzoo's own plugins."""
    packages = [plugin.package for plugin in registry("models").plugins.plugins if plugin.first_party]
    paths = [path for package in packages for path in catalog_files(package)]
    return [pytest.param(path, id=path.rpartition("/")[2]) for path in paths]


@pytest.mark.parametrize("path", own_files())
def test_catalog_of_imgzoo_is_canonical_and_sound(path):
    data = read_json(path)
    assert check(data) == []
    with open(path) as file:
        assert file.read() == format_catalog(data)


@pytest.mark.parametrize("path", own_files())
def test_results_of_imgzoo_are_canonical_and_of_known_models(path):
    folder, _, name = path.rpartition("/")
    results = read_json(f"{folder}/results/{name}")
    with open(f"{folder}/results/{name}") as file:
        assert file.read() == format_results(results)
    models = read_json(path)["models"]
    assert set(results) <= set(models)
    for model, row in results.items():
        assert set(row.get("weights", {})) <= set(models[model]["weights"])


def broken(change):
    data = json.loads(json.dumps(FAMILY))
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d.update(extra=1), "unknown key 'extra'"),
        (lambda d: d.pop("models"), "a catalog needs a 'family' name and a 'models' table"),
        (lambda d: d.update(target="no_colon"), "convnext_tiny: target 'no_colon' is not 'package.module:attribute'"),
        (lambda d: d["models"].update(Bad={}), "Bad: a model's name has small letters, digits and '_' only"),
        (lambda d: tiny(d).update({"T-1": {}}), "convnext_tiny.T-1: a tag has small letters, digits and '_' only"),
        (lambda d: tiny(d)["a"].update(hue=1), "convnext_tiny.a: unknown cell 'hue'"),
        (lambda d: tiny(d)["a"].update(license="apache"), 'license "apache" is not an SPDX id or LicenseRef-...'),
        (lambda d: tiny(d)["a"].update(license=""), "convnext_tiny.a: published weights need a license"),
        (lambda d: tiny(d)["a"].update(input_size=[3, 0, 1]), "input_size [3, 0, 1] is not an integer or"),
        (lambda d: tiny(d)["a"].update(crop_pct=90), "crop_pct 90 is not between 0 and 2"),
        (lambda d: tiny(d)["a"].update(normalize="half"), 'normalize "half" is not one of imagenet'),
        (lambda d: tiny(d)["a"].update(interpolation="cubic"), 'interpolation "cubic" is not one of bicubic'),
        (lambda d: tiny(d)["a"].update(crop_mode="fit"), 'crop_mode "fit" is not one of center'),
        (lambda d: tiny(d)["a"].update(sha256="abc"), 'sha256 "abc" is not 64 hexadecimal digits'),
        (lambda d: tiny(d)["a"].update(url="http://x"), 'url "http://x" is not an https:// address'),
        (lambda d: tiny(d)["a"].update(num_classes=-1), "num_classes -1 is not a count"),
        (lambda d: d["defaults"].update(size=1), "defaults: unknown cell 'size'"),
        (lambda d: d["aliases"].update(old="gone"), "alias old: there is no model 'gone'"),
        (lambda d: d["aliases"].update(old="convnext_tiny.z"), "alias old: convnext_tiny has no weights 'z'"),
        (lambda d: d["aliases"].update(convnext_plain="convnext_tiny"), "there is a model of that name"),
        (lambda d: tiny(d)["a"].update(hf_hub_id=""), "convnext_tiny: the first weights are the default"),
    ],
)
def test_check_finds(change, problem):
    problems = check(broken(change))
    assert len([each for each in problems if problem in each]) >= 1, problems
    assert check(FAMILY) == []


def tiny(data):
    return data["models"]["convnext_tiny"]["weights"]


def test_a_cell_of_a_newer_core_is_ignored():
    spec = next(iter(family_specs(broken(lambda d: tiny(d)["a"].update(hue="red")))))
    assert spec.weights[0].crop_pct == 0.9


@pytest.mark.parametrize(
    "cells",
    [
        {"normalize": "half"},
        {"normalize": [[1]]},
        {"test_input_size": 1.5},
        {"input_size": "224"},
        {"input_size": ["a", "b", "c"]},
        {"crop_pct": "0.9"},
        {"license": 3},
        {"kwargs": []},
        {"num_classes": None},
        3,
    ],
)
def test_a_weight_row_that_makes_no_sense_is_left_out_and_told(caplog, cells):
    spec = next(iter(family_specs(broken(lambda d: tiny(d).update(bad=cells)))))
    with caplog.at_level(logging.WARNING):
        assert [row.tag for row in spec.weights] == ["a", "b", "c"]
    assert "convnext_tiny.bad cannot be used" in caplog.text


def test_reading_imports_no_network(site):
    site.write("heavy/__init__.py", "")
    site.write("heavy/catalog/net.json", json.dumps({**FAMILY, "target": "heavy.net:Net"}))
    site.write("heavy/catalog/results/convnext.json", '{"convnext_tiny": {"params": 7}}')
    site.write("heavy/net.py", "raise AssertionError('imported')")
    assert [spec.name for spec in Catalog.read("heavy")] == ["convnext_tiny", "convnext_plain"]
    assert read_results("heavy", "convnext") == {"convnext_tiny": {"params": 7}}
    assert read_results("heavy", "other") == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", True),
        ("[]", True),
        ('{"net": 3}', False),
        ('{"net": {"params": "many"}}', False),
        ('{"net": {"cost": [[224, 1.0]]}}', False),
        ('{"net": {"weights": {"t": {"imagenet": ["high", 1]}}}}', False),
    ],
)
def test_damaged_results_are_no_results(site, caplog, text, told):
    site.write("odd/__init__.py", "")
    site.write("odd/catalog/results/f.json", text)
    assert read_results("odd", "f") == {}
    assert ("published results cannot be read" in caplog.text) == told


def test_specs_can_be_pickled_and_copied():
    for spec in family_specs(FAMILY):
        assert pickle.loads(pickle.dumps(spec)) == spec == copy.deepcopy(spec)


def test_every_cell_of_a_catalog_has_its_rule():
    assert set(RULES[WeightSpec]) - {"tag", "arch"} == cells.CELLS
    assert not [field for field, value in WeightSpec._field_defaults.items() if field in cells.CELLS
                and not RULES[WeightSpec][field].holds(value)]  # fmt: skip


def test_a_catalog_that_is_not_there_is_no_empty_one(site):
    site.write("bare/__init__.py", "")
    with pytest.raises(FileNotFoundError, match="is it in the wheel"):
        Catalog.read("bare")
    with pytest.raises(ModuleNotFoundError):
        Catalog.read("there_is_no_such_package")
    with pytest.raises(ValueError, match="__package__"):
        Catalog.read(None)


@pytest.mark.parametrize("text", ["{", "[]", '{"family": "f"}', '{"family": "f", "models": {"m": 3}}'])
def test_a_damaged_file_is_the_plugins_own_trouble(site, text):
    site.add("bad-zoo", "bad", "@hookimpl\ndef imgzoo_models(): return Catalog.read(__package__)",
             files={"bad_zoo/catalog/net.json": text})  # fmt: skip
    from imgzoo.registry import fill

    host = site.manager()
    assert fill(host, "models").names() == []
    assert host.plugins[-1].state == "error"
    assert "imgzoo_models" in host.plugins[-1].reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("mit", "MIT"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("dinov3-license", "LicenseRef-dinov3-license"),
        ("unknown", "LicenseRef-unknown"),
        ("Some License, v2", "LicenseRef-Some-License-v2"),
        ("LicenseRef-x", "LicenseRef-x"),
        ("", ""),
    ],
)
def test_licenses_become_spdx(text, expected):
    assert spdx(text) == expected
    assert expected == "" or is_known(expected)


def test_an_unknown_license_is_never_permissive():
    assert [
        text for text in ("", "LicenseRef-unknown", "LicenseRef-MIT", "mit", "CC-BY-NC-4.0") if is_permissive(text)
    ] == []
    assert is_permissive("MIT") and is_permissive("Apache-2.0")


def test_published_tells_whether_there_is_a_file():
    assert not WeightSpec("untrained").published
    assert WeightSpec("x", url="https://e/x").published and WeightSpec("x", hf_hub_id="o/x").published
