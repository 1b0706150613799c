"""Every registered name has the keys, order, shapes, counts and levels that its published weights need."""

import re

import pytest

import imgzoo
from imgzoo.registry import registry
from imgzoo.testing.facts import Facts, facts_of

from small import FACTS


def test_facts_cover_the_catalog():
    ours = {spec.name for spec in registry("models").specs() if spec.plugin.startswith("archs-")}
    assert ours == set(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_structure(name):
    model = imgzoo.create_model(name, device="meta")
    assert facts_of(model) == Facts(*FACTS[name])
    assert not hasattr(model, "img_size") or "set_input_size" in imgzoo.get_spec(name).capabilities
    leaves = {re.sub(r"_\d+$", "", path) for path, module in model.named_modules() if not any(module.children())}
    assert len({leaf.replace(".", "_") for leaf in leaves}) == len(leaves), "torchvision's tracer mixes up two paths"
    for path, module in model.named_modules():  # what no state dict holds is computed anew
        filled = {key for key, kind in getattr(module, "tables", {}).items() if kind.computed}
        assert module._non_persistent_buffers_set <= filled, f"nobody fills the buffers of {path} again"
