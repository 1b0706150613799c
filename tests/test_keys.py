"""Every registered name has the keys, order, shapes, counts and levels that its published weights need."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

import imgzoo
from imgzoo.registry import registry

PACKAGES = Path(__file__).parents[1] / "packages"
FACTS = {name: row for path in sorted(PACKAGES.glob("*/tests/facts/*.json"))
         for name, row in json.loads(path.read_text()).items()}  # fmt: skip


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def test_facts_cover_the_catalog():
    ours = {spec.name for spec in registry("models").specs() if spec.plugin.startswith("archs-")}
    assert ours == set(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_structure(name):
    params, buffers, state_digest, order_digest, count, num_features, head_hidden_size, levels = FACTS[name]
    with torch.device("meta"):
        model = imgzoo.create_model(name)
    shapes = [[key, list(value.shape)] for key, value in model.state_dict().items()]
    assert digest(sorted(shapes)) == state_digest, "keys or shapes"
    assert digest(shapes) == order_digest, "order"
    assert len(shapes) == count
    assert sum(p.numel() for p in model.parameters()) == params
    assert sum(b.numel() for b in model.buffers()) == buffers
    for path, module in model.named_modules():  # what no state dict holds is computed anew
        filled = {key for key, kind in getattr(module, "tables", {}).items() if kind.computed}
        assert module._non_persistent_buffers_set <= filled, f"nobody fills the buffers of {path} again"
    assert (model.num_features, model.head_hidden_size) == (num_features, head_hidden_size)
    assert [list(level) for level in model.feature_info.levels] == levels
