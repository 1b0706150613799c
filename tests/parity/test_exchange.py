"""Other activations and norms, where our constructor has no word for them, change what they change in the peer."""

from functools import partial

import pytest
import torch
from torch import nn

import imgzoo
from imgzoo.options import exchanges_of

from kit import perturb, timm
from small import QUICK, image

PARTS = {name: exchanges_of(imgzoo.get_spec(name).load()) for name in QUICK}
TOKENS, MAPS = ("LayerNorm", "RmsNorm", "SimpleNorm"), ("BatchNorm2d", "LayerNorm2d", "RmsNorm2d", "GroupNorm1")


def layer(name: str) -> type[nn.Module]:
    return getattr(timm.layers, name, None) or getattr(nn, name)


def built(name: str, **options):
    """The peer's network, smaller where it can be, and the options that made it so."""
    for smaller in (QUICK.get(name, {}), {}):
        try:
            return timm.create_model(name, **smaller, **options), smaller
        except (TypeError, AssertionError, AttributeError) as error:
            refused = error
    pytest.skip(f"the peer's {name} does not take it: {refused}")


def alike(name: str, word: str, value: object) -> None:
    torch.manual_seed(0)
    peer, smaller = built(name, **{word: value})
    perturb(peer)
    ours = imgzoo.create_model(name, **smaller, **{word: value})
    ours.load_state_dict(peer.state_dict())
    peer, ours = peer.double().eval(), ours.double().eval()
    x = image(ours, 1).double()
    with torch.no_grad():
        expected = peer(x)
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", [*(name for name, parts in PARTS.items() if "act" in parts), "efficientvit_b0",
                                  "efficientvit_l1"])  # fmt: skip
def test_an_activation(name):
    alike(name, "act_layer", nn.Mish)


NORMS = [(name, kind) for name, parts in PARTS.items() if "norm" in parts and name != "fastvit_t8"  # it has none
         for kind in (TOKENS if parts["norm"].of in ("layernorm", "layernorm*") else MAPS)]  # fmt: skip
NORMS += [("mambaout_femto", kind) for kind in TOKENS]


@pytest.mark.parametrize("name, kind", NORMS)
def test_a_norm(name, kind):
    alike(name, "norm_layer", partial(layer(kind), eps=0.1) if kind != "GroupNorm1" else layer(kind))


WORDED = ("ese_vovnet19b_dw", "mobilevit_xxs", "mobilevitv2_050", "regnetx_002", "repvgg_a0", "resnest14d", "resnet18",
          "resnetv2_18", "skresnet18")  # fmt: skip
"""Networks whose constructor has a word for them."""


@pytest.mark.parametrize("name", WORDED)
@pytest.mark.parametrize("word, value", [
    ("act_layer", partial(nn.LeakyReLU, negative_slope=0.3)), ("act_layer", partial(nn.ELU, 0.3)),
    ("norm_layer", partial(nn.BatchNorm2d, eps=0.3)),
])  # fmt: skip
def test_a_part_with_options_of_its_own(name, word, value):
    alike(name, word, value)


GROUPS = partial(timm.layers.GroupNormAct, num_groups=8)
PLAIN_GROUPS = partial(timm.layers.GroupNorm, num_groups=8)
OWN = [
    ("cspresnet50", GROUPS), ("cspdarknet53", partial(nn.BatchNorm2d, eps=0.3)), ("cs3darknet_s", layer("GroupNorm1")),
    ("cspresnet50", layer("EvoNorm2dS0")), ("cspnext_tiny", partial(layer("LayerNorm2d"), eps=0.1)),
    ("fastvit_sa12", layer("LayerNorm2d")), ("fastvit_sa12", partial(layer("LayerNorm2d"), eps=0.3)),
    ("fastvit_mci0", partial(nn.BatchNorm2d, eps=0.3)), ("efficientnet_b0", GROUPS), ("efficientnet_b0", PLAIN_GROUPS),
    ("efficientnet_b0", layer("EvoNorm2dB0")), ("efficientnet_b0", partial(layer("EvoNorm2dS0"), group_size=4)),
    ("resnet18", layer("EvoNorm2dS0")), ("resnet18", layer("EvoNorm2dB0")), ("resnet18", layer("BatchNormAct2d")),
    ("resnet18", layer("FilterResponseNormTlu2d")), ("resnet18", GROUPS), ("resnetv2_18", PLAIN_GROUPS),
    ("regnetx_002", GROUPS), ("regnetx_002", PLAIN_GROUPS), ("ese_vovnet19b_dw", PLAIN_GROUPS),
    ("resnext26ts", layer("FilterResponseNormAct2d")), ("resnext26ts", layer("FilterResponseNormTlu2d")),
    ("resnext26ts", "frn"), ("resnext26ts", "frntlu"), ("regnety_002", layer("FilterResponseNormAct2d")),
]  # fmt: skip


@pytest.mark.parametrize("name, norm", OWN)
def test_a_norm_in_another_form(name, norm):
    alike(name, "norm_layer", norm)
