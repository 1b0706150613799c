"""Networks whose constructor has no word for an activation, a norm or an epsilon take one all the same."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import imgzoo
from imgzoo.errors import OptionError, UsageError
from imgzoo.options import exchanges_of, parameters_of

sys.path.insert(0, str(Path(__file__).parent / "parity"))
from small import FACTS, QUICK, image

ATTENDING = {"fastvit_t8": "fastvit_sa12"}
"""A network that has norms to exchange, where the smallest has none."""
STARTS = ("grad_checkpointing", "head_init_scale")
"""Options that change no answer, but how a network is trained or begins."""
CASES = [pytest.param(name, option, marks=pytest.mark.slow if FACTS[name][0] > 12e6 else ())
         for each in QUICK for option in exchanges_of(imgzoo.get_spec(each).load()) if option not in STARTS
         for name in [ATTENDING.get(each, each) if option in ("norm", "eps") else each]]  # fmt: skip
SCALED = [name for name in QUICK if "head_init_scale" in exchanges_of(imgzoo.get_spec(name).load())]
OTHER = {"act": "mish", "dw_act": "silu", "eps": 3.0, "token_eps": 3.0}


def other(name: str, option: str) -> dict[str, object]:
    """A value that differs from what the network has."""
    if option.endswith("_bias"):
        models = (
            imgzoo.create_model(name, device="meta", **QUICK.get(name, {}), **{option: each}) for each in (True, None)
        )
        with_biases, plain = (model.state_dict().keys() for model in models)
        return {option: with_biases != plain}
    if option in OTHER:
        return {option: OTHER[option]}
    of = exchanges_of(imgzoo.get_spec(name).load())[option].of
    return {option: "simplenorm" if of.startswith("layernorm") else "groupnorm1" if of != "groupnorm1"
            else "batchnorm"}  # fmt: skip


@pytest.mark.parametrize("name, option", CASES)
def test_the_option_changes_the_network_and_its_folder_has_it(name, option, tmp_path):
    answers = []
    for change in ({}, other(name, option)):
        torch.manual_seed(0)
        model = imgzoo.create_model(name, num_classes=3, **QUICK.get(name, {}), **change).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # some begin at zero, where nothing can be seen
                parameter.uniform_(-0.1, 0.1)
            answers.append(model(image(model, 1)))
    assert answers[0].isfinite().all() and not torch.equal(*answers)
    imgzoo.save_model(model, tmp_path)
    again = imgzoo.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(image(again, 1)), answers[1])


@pytest.mark.parametrize("name", SCALED)
def test_classifiers_begin_with_so_many_times_their_values(name):
    heads = []
    for scale in (0.5, 1.0):
        torch.manual_seed(0)
        heads.append(
            imgzoo.create_model(name, num_classes=9, **QUICK[name], head_init_scale=scale).get_classifier().weight
        )
    torch.manual_seed(0)
    usual = imgzoo.create_model(name, num_classes=9, **QUICK[name]).get_classifier().weight
    torch.testing.assert_close(2 * heads[0], heads[1])
    of = dict(exchanges_of(imgzoo.get_spec(name).load()))["head_init_scale"].usual
    assert heads[1].std().item() == pytest.approx(usual.std().item() / of, rel=0.1)


def test_tiny_vit_keeps_what_enters_its_blocks():
    x = torch.randn(1, 3, 224, 224)
    ran = []
    for given in (True, False):
        model = imgzoo.create_model("tiny_vit_5m_224", use_checkpoint=given).train()
        inside = model.stages[1].blocks[0].mlp
        calls = []
        inside.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        model(x).sum().backward()
        ran.append(len(calls))
    assert ran == [2, 1]


def test_values_that_are_none_are_refused():
    with pytest.raises(UsageError, match="unknown activation 'nonsense'; use one of relu"):
        imgzoo.create_model("densenet121", act="nonsense", device="meta")
    with pytest.raises(UsageError, match="norm 'batchnorm' is not one of tokens; use one of layernorm, "):
        imgzoo.create_model("swin_tiny_patch4_window7_224", norm="batchnorm", device="meta")
    with pytest.raises(UsageError, match="eps must be a finite number"):
        imgzoo.create_model("swin_tiny_patch4_window7_224", eps=-1.0, device="meta")
    with pytest.raises(UsageError, match="act is a word or a function or none, not 3"):
        imgzoo.create_model("densenet121", act=3, device="meta")
    with pytest.raises(OptionError, match="vgg11 has no option 'eps'; it takes act, "):
        imgzoo.create_model("vgg11", eps=0.1, device="meta")


def test_what_the_constructor_takes_itself_is_left_to_it():
    for name in QUICK:
        build = imgzoo.get_spec(name).load()
        for option in exchanges_of(build):
            assert parameters_of(build)[0][option].default is None
            if option not in getattr(build, "settled", ()):  # its base class has a word for that
                with pytest.raises(TypeError):
                    build(**{option: "relu"})


class Steep(torch.nn.LeakyReLU):
    """An activation of a caller's own."""


WORDED = (
    "efficientnet_lite0",
    "ese_vovnet19b_dw",
    "mobilevit_xxs",
    "regnetx_002",
    "resnet18",
    "resnetv2_18",
    "vgg11_bn",
)


@pytest.mark.parametrize("name", WORDED)
def test_words_of_a_constructor_may_be_parts_of_the_callers(name):
    norm = partial(torch.nn.BatchNorm2d, eps=0.3, momentum=0.02)
    model = imgzoo.create_model(name, act_layer=Steep, norm_layer=norm, device="meta")
    kinds = [part for part in model.modules() if not list(part.children())]
    assert any(isinstance(part, Steep) for part in kinds) and not any(type(part) is torch.nn.ReLU for part in kinds)
    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert norms and all((part.eps, part.momentum) == (0.3, 0.02) for part in norms)
    assert imgzoo.create_model(name, act=partial(Steep, 0.5), device="meta").name == name


def test_norms_that_an_activation_cannot_follow_are_refused():
    class Own(torch.nn.BatchNorm2d):
        pass

    with pytest.raises(UsageError, match="own cannot stand with an activation behind it; use one of batchnorm"):
        imgzoo.create_model("resnetv2_18", norm=Own, device="meta")
    with pytest.raises(UsageError, match="batchnorm2d cannot stand"):
        imgzoo.create_model("resnetv2_18", norm=partial(torch.nn.BatchNorm2d, affine=False), device="meta")
    assert imgzoo.create_model("resnet18", norm=Own, device="meta").bn1.__class__ is Own


def test_fixed_norms_begin_with_nothing_where_learned_ones_do():
    model = imgzoo.create_model("resnet18", norm="frozenbatchnorm2d")
    assert not model.layer1[0].bn2.weight.any() and model.layer1[0].bn1.weight.all()


def test_the_choice_between_kernels_or_maps_keeps_its_parts():
    model = imgzoo.create_model("skresnet18", act="mish", norm="groupnorm1", device="meta")
    choice = model.layer1[0].conv1.attn
    assert (type(choice.act), type(choice.bn)) == (torch.nn.ReLU, torch.nn.BatchNorm2d)
    assert type(model.layer1[0].act) is torch.nn.Mish
    model = imgzoo.create_model("resnest14d", act="mish", device="meta")
    assert type(model.layer1[0].conv2.act0) is torch.nn.ReLU and type(model.layer1[0].act3) is torch.nn.Mish


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn"])
def test_norms_that_act_stand_where_others_do(name):
    x = torch.randn(1, 3, 64, 64)
    for norm, kind in (("evonorms0", "EvoNorm2dS0"), ("batchnormact2d", "BatchNormAct2d")):
        model = imgzoo.create_model(name, norm=norm, num_classes=3).eval()
        assert any(type(part).__name__ == kind for part in model.modules()) and model(x).isfinite().all()


class Grouped(torch.nn.GroupNorm):
    """A norm of a caller's with another word for the activation."""

    def __init__(self, dim, num_groups=4, apply_act=True, act_layer=torch.nn.ReLU):
        super().__init__(num_groups, dim)
        kind = {"relu": torch.nn.ReLU, "silu": torch.nn.SiLU}.get(act_layer, act_layer)
        self.act = kind() if apply_act else torch.nn.Identity()

    def forward(self, x):
        return self.act(super().forward(x))


@pytest.mark.parametrize("name", ["efficientnet_b0", "tf_efficientnet_b0", "regnetx_002", "cspresnet50", "resnetv2_18"])
def test_norms_of_a_callers_keep_their_options(name):
    model = imgzoo.create_model(name, norm_layer=partial(Grouped, num_groups=2), device="meta")
    norms = [part for part in model.modules() if isinstance(part, Grouped)]
    assert norms and all(part.num_groups == 2 for part in norms)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in model.modules())
    plain = imgzoo.create_model(name, norm_layer=partial(torch.nn.BatchNorm2d, momentum=0.3), device="meta")
    kinds = {type(part).__name__ for part in plain.modules() if isinstance(part, torch.nn.BatchNorm2d)}
    assert kinds == {"BatchNormAct2d"}
