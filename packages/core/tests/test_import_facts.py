"""tools/import_facts.py merges facts into a catalog and leaves what authors wrote alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from imgzoo.catalog import check, family_specs, format_catalog, read_json

TOOL = Path(__file__).parents[3] / "tools" / "import_facts.py"
if not TOOL.exists():
    pytest.skip("the tool is not in the source distribution", allow_module_level=True)


def weights(**cells) -> dict:
    base = {"url": "", "hf_hub_id": "timm/", "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.9,
            "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "num_classes": 1000, "license": "apache-2.0"}  # fmt: skip
    return base | cells


def facts(default: str, **rows) -> dict:
    structure = {"params": 10, "buffers": 2, "state_digest": "aa", "order_digest": "bb", "state_tensors": 4}
    structure |= {"num_features": 8, "head_hidden_size": 8, "features": [[8, 4, "stages.0"]]}
    cost = [{"img_size": 224, "gmacs": 0.5, "macts": 1.5}]
    return {"model_class": "ToyNet", "config": {}, **structure, "cost": cost, "default_tag": default, "weights": rows}


SCORE = {"imagenet": {"top1": 80.1, "top5": 95.2, "img_size": 224, "crop_pct": 0.9, "interpolation": "bicubic"}}
FAMILY = {
    "toy_small": facts(
        "b",
        a=weights(license="mit", paper_ids="arXiv:2110.00476"),
        b=weights(results=SCORE, test_input_size=[3, 288, 288]),
        raw=weights(hf_hub_id=None),
    ),
    "toy_large": facts("", **{"": weights(hf_hub_id=None, license=None, input_size=[3, 256, 256])}),
    "toy_odd": facts("t", t=weights(hf_hub_id="someone/else", license="own-terms", mean=[0.1, 0.2, 0.3])),
    "toy_file": facts("t", t=weights(hf_hub_id=None, url="https://example.org/t.pth")),
}


@pytest.fixture
def run(tmp_path):
    reference = tmp_path / "reference"
    (reference / "families").mkdir(parents=True)
    (reference / "families" / "toy.json").write_text(json.dumps(FAMILY))
    (reference / "models.csv").write_text(
        "model,module,family,package,pretrained_tags\ntoy_small,toy,Toy,archs-cnn,2\n"
    )
    (reference / "deprecated.json").write_text('{"old_toy": "toy_small.a", "other": "resnet50"}')

    def call(*args: str) -> Path:
        command = [sys.executable, str(TOOL), str(reference), "toy", "--packages", str(tmp_path / "packages"), *args]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ": unknown" not in done.stdout
        return tmp_path / "packages" / "archs-cnn"

    return call


def catalog(package: Path) -> Path:
    return package / "src" / "imgzoo_archs_cnn" / "catalog" / "toy.json"


def test_weights_aliases_results_and_structure_are_written(run):
    package = run()
    data = read_json(str(catalog(package)))
    assert check(data) == []
    assert format_catalog(data) == catalog(package).read_text()
    small, large, odd, file = family_specs(data)
    assert [row.tag for row in small.weights] == ["b", "a"]  # the default first; unpublished rows beside others go
    assert (small.weights[0].license, small.weights[1].license) == ("Apache-2.0", "MIT")
    assert (small.weights[0].test_input_size, small.weights[1].paper) == ((3, 288, 288), "2110.00476")
    assert small.weights[0].hf_hub_id == "timm/toy_small.b" and small.weights[0].mean == (0.5, 0.5, 0.5)
    assert small.aliases == {"old_toy": "toy_small.a"}
    assert [(row.tag, row.published, row.input_size) for row in large.weights] == [("untrained", False, (3, 256, 256))]
    assert (odd.weights[0].hf_hub_id, odd.weights[0].license) == ("someone/else", "LicenseRef-own-terms")
    assert (odd.weights[0].mean, odd.weights[0].std) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert (file.weights[0].hf_hub_id, file.weights[0].url) == ("", "https://example.org/t.pth")
    assert data["target"] == "imgzoo_archs_cnn.toy:ToyNet"
    results = json.loads((catalog(package).parent / "results" / "toy.json").read_text())
    assert results["toy_small"] == {
        "params": 10, "cost": [[224, 0.5, 1.5]], "weights": {"b": {"imagenet": [80.1, 95.2, 224, 0.9, "bicubic"]}},
    }  # fmt: skip
    structure = json.loads((package / "tests" / "facts" / "toy.json").read_text())
    assert structure["toy_large"] == [10, 2, "aa", "bb", 4, 8, 8, [[8, 4, "stages.0"]]]


def test_only_takes_a_part_and_a_second_run_keeps_what_authors_wrote(run):
    package = run("--only", "toy_small")
    data = read_json(str(catalog(package)))
    assert list(data["models"]) == ["toy_small"]
    data["target"], data["paper"] = "imgzoo_archs_cnn.toy:Other", "1234.56789"
    data["models"]["toy_small"] = {"depths": [1, 2], **data["models"]["toy_small"]}
    data["models"]["toy_small"]["weights"]["a"]["kwargs"] = {"norm": "batch"}
    data["models"]["own_net"] = {"depths": [9], "weights": {"x": {"url": "https://example.org/x", "hf_hub_id": ""}}}
    catalog(package).write_text(format_catalog(data))

    run("--only", "toy_odd")
    merged = read_json(str(catalog(package)))
    assert list(merged["models"]) == ["toy_small", "toy_odd", "own_net"]
    assert (merged["target"], merged["paper"]) == ("imgzoo_archs_cnn.toy:Other", "1234.56789")
    assert merged["models"]["toy_small"]["depths"] == [1, 2]
    assert merged["models"]["toy_small"]["weights"]["a"]["kwargs"] == {"norm": "batch"}
    before = {spec.name: spec for spec in family_specs(data)}
    after = {spec.name: spec for spec in family_specs(merged)}
    assert before["own_net"] == after["own_net"]
    assert before["toy_small"] == after["toy_small"]
    once = catalog(package).read_text()
    run("--only", "toy_odd")
    assert catalog(package).read_text() == once
