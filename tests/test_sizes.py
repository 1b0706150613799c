"""Sizes that no stage divides: a network takes them, or says in one sentence what it takes."""

import copy
import sys
from pathlib import Path

import pytest
import torch

import imgzoo

sys.path.insert(0, str(Path(__file__).parent / "parity"))
from small import QUICK
from structures import STRUCTURES

ODD = (107, 91)
"""Both odd at every halving but the last."""


def look(name, **options):
    model = imgzoo.create_model(name, device="meta", **options).eval()
    if hasattr(model, "img_size"):  # made for one size, which it says itself
        return
    try:
        model(torch.zeros(1, model.in_chans, *ODD, device="meta"))
    except ValueError as error:
        assert "does not divide" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
def test_odd_sizes(name, options):
    look(name, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for names in STRUCTURES.values() for name in names])
def test_odd_sizes_of_every_structure(name):
    look(name)


@pytest.mark.parametrize("name", ["test_byobnet", "dla46x_c", "resnetaa34d", "resnet50_mlp", "regnetv_064"])
def test_shortcuts_are_as_large_as_what_they_are_added_to(name):
    look(name)


def test_a_network_of_squares_says_so():
    model = imgzoo.create_model("tresnet_m", device="meta").eval()
    with pytest.raises(ValueError, match="does not divide into squares of 4: resize it to multiples of that"):
        model(torch.zeros(1, 3, *ODD, device="meta"))


def says(call, x):
    """What a network says to images: the shape or shapes of its answer, or the sentence that refuses them."""
    try:
        answer = call(x)
    except ValueError as error:
        assert "\n" not in str(error)
        return str(error)
    return "an answer" if isinstance(answer, torch.Tensor) else [each.shape for each in answer]


def look_at_levels(name, **options):
    """Levels, extractors and pruned networks refuse the sizes that the network refuses, in its words."""
    model = imgzoo.create_model(name, device="meta", **options).eval()
    if len(model.feature_info) == 0:
        return
    height, width = getattr(model, "img_size", (0, 0))
    sizes = [(height + 1, width), (2 * height, width + 32)] if height else [(113, 96)]
    extractor = imgzoo.create_model(name, device="meta", features_only=True, **options).eval()
    pruned = copy.deepcopy(model)
    pruned.prune_intermediate_layers([0])
    for size in sizes:
        x = torch.zeros(1, model.in_chans, *size, device="meta")
        wanted = says(model, x)
        levels = says(lambda x: model.forward_intermediates(x, intermediates_only=True), x)
        for kind, found in {"levels": levels, "extractor": says(extractor, x), "pruned": says(pruned, x)}.items():
            if isinstance(wanted, str) and wanted != "an answer":
                assert found == wanted or (kind, found) == ("pruned", "an answer"), (kind, size)  # no table may be left
            else:
                assert not isinstance(found, str) or found == "an answer", (kind, size)


@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
def test_levels_at_wrong_sizes(name, options):
    look_at_levels(name, **options)


@pytest.mark.parametrize("name", ["resnet50_clip", "lambda_resnet26t", "botnet26t_256"])
def test_levels_of_attention_in_maps(name):
    look_at_levels(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for names in STRUCTURES.values() for name in names])
def test_levels_of_every_structure_at_wrong_sizes(name):
    look_at_levels(name)
