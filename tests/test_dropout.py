"""Every rate of dropout that a constructor takes reaches a layer that training runs through, in every structure."""

import pytest
import torch

import imgzoo
from imgzoo.options import parameters_of
from imgzoo_layers import drop

from structures import IDLE, REDUCED, STRUCTURES

RATES = {"pos_drop_rate": 0.11, "patch_drop_rate": 0.22, "proj_drop_rate": 0.33, "attn_drop_rate": 0.44}


def taken(name: str) -> dict[str, float]:
    parameters = parameters_of(imgzoo.get_spec(name).load())[0]
    return {rate: value for rate, value in RATES.items() if rate in parameters and name not in IDLE}


@pytest.fixture
def drawn(monkeypatch):
    """The probabilities that anything is dropped with."""
    found = set()

    def record(owner, name, keyword, position):
        whole = getattr(owner, name)

        def recorded(*args, **kwargs):
            found.add(kwargs[keyword] if keyword in kwargs else args[position])
            return whole(*args, **kwargs)

        monkeypatch.setattr(owner, name, recorded)

    record(torch.nn.functional, "dropout", "p", 1)
    record(torch.nn.functional, "scaled_dot_product_attention", "dropout_p", 4)
    record(drop, "kept_patches", "rate", 2)
    return found


@pytest.mark.parametrize("family", [family for family, names in STRUCTURES.items() if any(map(taken, names))])
def test_every_rate_reaches_a_layer(family, drawn):
    for name in STRUCTURES[family]:
        drawn.clear()
        model = imgzoo.create_model(name, device="meta", **REDUCED.get(name, {}), **taken(name)).train()
        model(torch.empty(2, *model.pretrained_cfg["input_size"], device="meta"))
        assert {*RATES.values()} & drawn == {*taken(name).values()}, name
