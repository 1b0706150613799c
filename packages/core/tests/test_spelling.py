"""Options in the field's spelling: what each word and value stands for, what is refused, where it is read."""

import json
from functools import partial

import pytest
import torch
from torch import nn

from imgzoo.catalog import check, family_specs, format_catalog
from imgzoo.errors import OptionError
from imgzoo.options import parameters_of
from imgzoo.plugin import ModelSpec
from imgzoo.spelling import field_words, near_words, spoken, translated


class Net:
    def __init__(self, depths=(1, 1), act="relu", norm="layernorm", eps=1e-6, mlp="mlp", gate=None, gate_ratio=None,
                 aa=None, layer_scale=None, level=1, block="block", drop_path_rate=0.0, attn_options=None):  # fmt: skip
        pass


class ActingNet(Net):
    norms_act = True


class MixedNet(Net):
    norms_act = None


SPELLING = {
    "levels": ["level"],
    "block_fn": {"Block": {"block": "block"}, "PostBlock": {"block": "post", "layer_scale": None}},
    "block_args": {"*": "*"},
    "attn_kwargs": {"*": "attn_options.*", "num_heads": "heads"},
    "attn_layer": "gate",
    "rel_pos": {"true": {}},
    "use_gate": {"true": {"gate?": "se", "eps?": 0.5}, "false": {"gate": None}},
    "act_of_mlp": {"none": {"act": "identity"}, "*": "act"},
}
SPEC = ModelSpec("net", f"{__name__}:Net", {"eps": 1e-5}, spelling=SPELLING)


SLOPED, OF_C = partial(nn.LeakyReLU, 0.3), partial(torch.relu, 1)
"""Parts whose argument is bound by its place."""


def part(name: str) -> type:
    return type(name, (), {})


@pytest.mark.parametrize("given, options", [
    ({}, {}),
    ({"act": nn.GELU}, {"act": nn.GELU}),
    ({"act_layer": "swish", "init_values": 0.1}, {"act": "silu", "layer_scale": 0.1}),
    ({"act_layer": nn.Hardswish}, {"act": "hard_swish"}),
    ({"act_layer": partial(nn.GELU, approximate="tanh")}, {"act": "gelu_tanh"}),
    ({"act_layer": partial(nn.GELU, "tanh")}, {"act": "gelu_tanh"}),
    ({"act_layer": SLOPED}, {"act": SLOPED}),
    ({"act_layer": OF_C}, {"act": OF_C}),
    ({"norm_layer": nn.LayerNorm}, {"norm": "layernorm", "eps": 1e-5}),
    ({"norm_layer": "layernorm"}, {"norm": "layernorm", "eps": 1e-6}),
    ({"norm_layer": "rmsnorm", "act_layer": "gelu"}, {"norm": "rmsnorm", "eps": 1e-6, "act": "gelu"}),
    ({"norm_layer": partial(nn.LayerNorm, eps=0.1)}, {"norm": "layernorm", "eps": 0.1}),
    ({"norm_layer": nn.BatchNorm2d, "bn_eps": 0.2}, {"norm": "batchnorm", "eps": 0.2}),
    ({"mlp_layer": partial(part("GluMlp"), act_layer=nn.SiLU, gate_last=False)}, {"mlp": "glu"}),
    ({"block_args": {"attn_layer": partial(part("SEModule"), rd_ratio=0.25)}}, {"gate": "se", "gate_ratio": 0.25}),
    ({"levels": [3, 3]}, {"level": 3}), ({"levels": 2}, {"level": 2}),
    ({"block_fn": part("PostBlock")}, {"block": "post", "layer_scale": None}),
    ({"rel_pos": True}, {}), ({"act_of_mlp": "none"}, {"act": "identity"}), ({"act_of_mlp": "silu"}, {"act": "silu"}),
    ({"layers": [2, 2], "drop_connect_rate": 0.1}, {"depths": [2, 2], "drop_path_rate": 0.1}),
    ({"use_gate": True}, {"gate": "se"}),  # the row says eps
    ({"use_gate": True, "attn_layer": "eca"}, {"gate": "eca"}), ({"use_gate": False}, {"gate": None}),
    ({"attn_kwargs": {"num_heads": 2, "r": 3}}, {"attn_options": {"heads": 2, "r": 3}}),
    ({"what": 1}, {"what": 1}),
])  # fmt: skip
def test_words_and_values(given, options):
    assert translated(SPEC, given) == options


WORDS = ("act_layer", "norm_layer", "init_values", "levels", "block_fn", "rel_pos", "depths", "attn_layer",
         "act_of_mlp", "mlp_layer", "attn_kwargs")  # fmt: skip
FIELD = SPEC._replace(field=frozenset(WORDS))


@pytest.mark.parametrize("options, said, unsaid", [
    ({}, {}, {}),
    ({"act": "silu", "layer_scale": 0.1}, {"act_layer": "silu", "init_values": 0.1}, {}),
    ({"depths": (2, 2), "drop_path_rate": 0.1}, {"depths": (2, 2)}, {"drop_path_rate": 0.1}),
    ({"gate": "eca"}, {"attn_layer": "eca"}, {}),
    ({"attn_options": {"heads": 2, "r": 3}}, {"attn_kwargs": {"num_heads": 2, "r": 3}}, {}),
    ({"act": "relu"}, {}, {"act": "relu"}),  # as in the row
    ({"mlp": "glu"}, {}, {"mlp": "glu"}),  # no word by itself: the field says it by a class and an option of it
    ({"level": 3}, {}, {"level": 3}), ({"block": "post"}, {}, {"block": "post"}),  # of each stage; by a class
    ({"norm": "rmsnorm"}, {}, {"norm": "rmsnorm"}),  # which would bring an epsilon that is not the row's
    ({"norm": "rmsnorm", "eps": 1e-6}, {"norm_layer": "rmsnorm"}, {"eps": 1e-6}),
    ({"norm": "rmsnorm", "eps": 0.1}, {}, {"norm": "rmsnorm", "eps": 0.1}),
])  # fmt: skip
def test_options_are_said_in_the_words_of_the_field(options, said, unsaid):
    assert spoken(FIELD, options) == (said, unsaid)
    assert {**translated(FIELD, said), **unsaid} == options
    assert spoken(SPEC, options) == ({}, options)


def test_a_class_means_what_its_word_does():
    words = {"norm_layer": {"layernorm2d": {"norm": "layernorm"}, "*": "norm"}}
    spec = ModelSpec("net", f"{__name__}:Net", {}, spelling=words)
    mine = part("LayerNorm2d")
    assert translated(spec, {"norm_layer": mine}) == {"norm": "layernorm"}
    assert translated(spec, {"norm_layer": partial(mine, eps=0.1)}) == {"norm": "layernorm", "eps": 0.1}
    assert translated(spec, {"norm_layer": nn.BatchNorm2d}) == {"norm": "batchnorm", "eps": 1e-5}


def test_an_epsilon_is_said_before_the_norm():
    spec = FIELD._replace(field=FIELD.field | {"norm_eps"})
    assert spoken(spec, {"norm": "rmsnorm", "eps": 0.1}) == ({"norm_eps": 0.1, "norm_layer": "rmsnorm"}, {})


def test_a_class_of_the_users_is_left_to_the_constructor():
    mine = part("Mine")
    assert translated(SPEC, {"act_layer": mine, "norm_layer": mine})["act"] is mine


@pytest.mark.parametrize("given, message", [
    ({"act": "relu", "act_layer": "gelu"}, "act and act_layer both say act"),
    ({"act_layer": "gelu", "act": "gelu"}, "act_layer and act both say act"),
    ({"norm_layer": partial(nn.LayerNorm, eps=1e-6), "bn_eps": 1e-5}, "norm_layer and bn_eps both say eps"),
    ({"block_fn": "Other"}, "no counterpart of block_fn=Other; it knows Block, PostBlock"),
    ({"rel_pos": False}, "no counterpart of rel_pos=false; it knows true"),
    ({"levels": [1, 2]}, r"takes one level for all stages, not levels=\[1, 2\]"), ({"levels": []}, "one level"),
    ({"block_args": 3}, "takes block_args as a table of options, not 3"),
    ({"attn_kwargs": "num_heads"}, "takes attn_kwargs as a table of options, not num_heads"),
    ({"mlp_layer": part("GluMlp")}, "no counterpart of mlp_layer=GluMlp; it knows mlp"),
    ({"aa_layer": nn.Linear}, "no counterpart of aa_layer=Linear; it knows avg"),
])  # fmt: skip
def test_what_cannot_be_told_here_is_named(given, message):
    with pytest.raises(OptionError, match=f"^net.*{message}"):
        translated(SPEC, given)


def test_a_table_of_each_stage_is_not_replaced_by_one():
    spec = SPEC._replace(kwargs={"attn_options": [None, {"heads": 2}]})
    with pytest.raises(OptionError, match="has attn_options of its own for each stage: give attn_options, not attn_kw"):
        translated(spec, {"attn_kwargs": {"num_heads": 4}})


def test_norms_of_two_epsilons_are_named_with_one():
    """A norm before an activation has another one in the field than a norm alone, which one option cannot say."""
    mixed = SPEC._replace(target=f"{__name__}:MixedNet")
    for value in ("layernorm2d", part("LayerNorm2d")):
        with pytest.raises(OptionError, match=r"give one for all, as norm_layer=partial"):
            translated(mixed, {"norm_layer": value})
        assert translated(SPEC, {"norm_layer": value}) == {"norm": "layernorm2d", "eps": 1e-6}
        acting = SPEC._replace(target=f"{__name__}:ActingNet")
        assert translated(acting, {"norm_layer": value}) == {"norm": "layernorm2d", "eps": 1e-5}
    assert translated(mixed, {"norm_layer": partial(part("LayerNorm2d"), eps=0.1)}) == {
        "norm": "layernorm2d",
        "eps": 0.1,
    }
    assert translated(mixed, {"norm": "layernorm2d"}) == {"norm": "layernorm2d"}


def test_a_word_that_the_constructor_takes_means_what_it_says_there():
    class Own:
        def __init__(self, layers=1, depths=2):
            pass

    globals()["Own"] = Own
    assert translated(ModelSpec("own", f"{__name__}:Own"), {"layers": [3]}) == {"layers": [3]}


def test_near_words_are_found_in_both_spellings():
    parameters, _ = parameters_of(Net)
    assert near_words(SPEC, parameters, "norm_layr")[0] == "norm_layer"
    assert near_words(SPEC, parameters, "layer_scal")[0] == "layer_scale"
    assert field_words(SPEC, parameters)["level"] == ["levels"]


CATALOG = {"family": "net", "target": "x:Y", "spelling": SPELLING, "models": {"net": {}}}


def test_a_catalog_holds_the_words_of_a_family():
    assert not check(CATALOG)
    assert json.loads(format_catalog(CATALOG))["spelling"] == SPELLING
    assert next(family_specs(CATALOG)).spelling == SPELLING
    assert list(format_catalog(CATALOG).splitlines()[2:4]) == [
        '  "act_of_mlp": {"none": {"act": "identity"}, "*": "act"},',
        '  "attn_kwargs": {"*": "attn_options.*", "num_heads": "heads"},',
    ]


@pytest.mark.parametrize("entry", [3, [], ["a", "b"], [1], {}, {"x": "y"}, {"*": {}}, None])
def test_a_malformed_entry_is_found(entry):
    assert [f for f in check({**CATALOG, "spelling": {"word": entry}}) if "spelling of word" in f]
    assert check({**CATALOG, "spelling": 3}) == ["spelling is a table, not int"]
