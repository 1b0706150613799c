"""Whatever pool a network is made with, or given a new classifier with, its keys and shapes are the peer's."""

import pytest
import torch

import imgzoo
from imgzoo.errors import ImgzooError

from kit import timm
from small import SMALLEST

WORDS = ("", "token", "avg", "max", "avgmax", "map")


def shapes(library, name, word, anew):
    """The keys and shapes of a network that pools so, or None where the library refuses it."""
    try:
        with torch.device("meta"):
            if not anew:
                model = library.create_model(name, num_classes=5, global_pool=word)
            else:
                model = library.create_model(name)
                model.reset_classifier(5, word)
            return {key: value.shape for key, value in model.state_dict().items()}
    except (ImgzooError, AssertionError, ValueError, KeyError, RuntimeError, TypeError, AttributeError):
        return None


@pytest.mark.parametrize("anew", [False, True], ids=["made", "reset"])
@pytest.mark.parametrize("family", sorted(SMALLEST))
def test_pools_have_the_same_keys_and_shapes(family, anew):
    compared = 0
    for word in WORDS:
        mine, theirs = (shapes(library, SMALLEST[family], word, anew) for library in (imgzoo, timm))
        if mine is not None and theirs is not None:
            assert mine == theirs, word
            compared += 1
    if not compared:
        pytest.skip("no pool that both take")
