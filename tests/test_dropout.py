"""Every rate of dropout that a constructor takes reaches a layer that training runs through, in every structure."""

import pytest
import torch

import imgzoo
from imgzoo.errors import CapabilityError
from imgzoo.model import ImageModel
from imgzoo.options import parameters_of
from imgzoo_layers import drop

from structures import REDUCED, STRUCTURES

RATES = {"pos_drop_rate": 0.11, "patch_drop_rate": 0.22, "proj_drop_rate": 0.33, "attn_drop_rate": 0.44}


def built(name: str) -> tuple[ImageModel, set[float]]:
    """The network with every rate that it takes, and those of them that single values are dropped with."""
    parameters = parameters_of(imgzoo.get_spec(name).load())[0]
    rates = {rate: value for rate, value in {**RATES, "drop_path_rate": 0.3}.items() if rate in parameters}
    options = REDUCED.get(name, {})
    try:
        model = imgzoo.create_model(name, device="meta", **options, **rates)
    except CapabilityError as refusal:  # names what its blocks have no place for
        rates = {rate: value for rate, value in rates.items() if rate not in str(refusal)}
        model = imgzoo.create_model(name, device="meta", **options, **rates)
    return model.train(), {*rates.values()} & {*RATES.values()}


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


ALL = [
    pytest.param(name, marks=[pytest.mark.slow] if i else [], id=f"{family}-{name}")
    for family, names in STRUCTURES.items()
    for i, name in enumerate(names)
]


@pytest.mark.parametrize("name", ALL)
def test_every_rate_reaches_a_layer(name, drawn):
    model, rates = built(name)
    branches = {module for module in model.modules() if isinstance(module, drop.DropPath)}
    for module in {*branches}:
        module.register_forward_hook(lambda module, *_: branches.discard(module))
    model(torch.empty(2, *model.pretrained_cfg["input_size"], device="meta"))
    assert {*RATES.values()} & drawn == rates
    assert not branches, f"{len(branches)} branches that are to be dropped never run"


IDLE = [
    ("lcnet_050", "drop_path_rate"), ("mobilenetv1_100", "drop_path_rate"), ("test_efficientnet", "drop_path_rate"),
    ("vovnet39a", "drop_path_rate"), ("mobileone_s0", "drop_block_rate"), ("halonet_h1", "drop_block_rate"),
    ("lowformer_e1", "proj_drop_rate"),
]  # fmt: skip


@pytest.mark.parametrize("name, rate", IDLE)
def test_a_rate_that_would_do_nothing_is_refused(name, rate):
    with pytest.raises(CapabilityError, match=f"these blocks have nothing that {rate} drops; leave it out"):
        imgzoo.create_model(name, device="meta", **{rate: 0.1})
    imgzoo.create_model(name, device="meta", **{rate: 0.0})


@pytest.mark.parametrize("name", ["regnetz_b16", "mobilevit_xxs", "mobilevitv2_050", "resnet61q"])
def test_blocks_without_a_shortcut_are_never_dropped(name):
    model = imgzoo.create_model(name, device="meta", drop_path_rate=0.5)
    for path, module in model.named_modules():
        if isinstance(module, drop.DropPath):
            block = model.get_submodule(path.rpartition(".")[0])
            assert getattr(block, "shortcut", block) is not None, f"nothing is left of {path} where it is dropped"
    assert any(isinstance(module, drop.DropPath) for module in model.modules())
