"""Every option of `create_model` that is accepted has its effect: over all names, on the meta device."""

import inspect
import json
from contextlib import suppress
from functools import partial

import pytest
import torch
from click.testing import CliRunner

import imgzoo
from imgzoo.cli.info import command
from imgzoo.errors import CapabilityError, ImgzooError, OptionError, UsageError, WeightsError
from imgzoo.options import LINES, documented, lines_of, parameters_of
from imgzoo.registry import registry
from imgzoo.spelling import WORDS

from small import SMALLEST
from structures import REDUCED, STRUCTURES

TRANSFORMED = ("csatv2", "csatv2_21m")  # no kernel sees the image itself


@pytest.mark.parametrize("name", imgzoo.list_models())
def test_classes_and_channels_are_taken(name):
    model = imgzoo.create_model(name, device="meta", num_classes=13, in_chans=5)
    assert (model.num_classes, model.in_chans) == (13, 5)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert all(shapes[f"{path}.weight"][0] == 13 for path in model._heads())
    color = imgzoo.create_model(name, device="meta", num_classes=13).state_dict()
    seeing = [key for key, shape in shapes.items() if shape != color[key].shape]
    assert bool(seeing) != (name in TRANSFORMED)
    assert all(3 * shapes[key][1] == 5 * color[key].shape[1] for key in seeing)


@pytest.mark.parametrize("name", SMALLEST.values(), ids=SMALLEST)
def test_pools_are_taken_or_refused(name):
    for pool in ("avg", "max", "avgmax", "catavgmax", "token", ""):
        try:
            model = imgzoo.create_model(name, device="meta", num_classes=13, global_pool=pool)
        except (CapabilityError, UsageError):
            continue
        assert model.pool_kind() == pool
    with pytest.raises(UsageError):
        imgzoo.create_model(name, device="meta", global_pool="median")


def targets(entry):
    """Options that an entry of a spelling names."""
    if isinstance(entry, dict):
        if str(entry.get("*")).endswith(".*"):  # a table that is one option here, too
            return {entry["*"][:-2]}
        options = {option for each in entry.values() for option in ([each] if isinstance(each, str) else each)}
        return {option.removesuffix("?") for option in options} - {"*"}
    return {entry} if isinstance(entry, str) else set(entry)


def test_every_word_of_every_family_leads_to_an_option():
    families = {}
    for spec in registry("models").specs():
        families.setdefault(spec.family, []).append(spec)
    for family, specs in families.items():
        taken = set().union(*(parameters_of(build)[0] for build in {spec.load() for spec in specs}))
        for word, entry in specs[0].spelling.items():
            assert targets(entry) <= taken, f"{family}: {word} leads to {targets(entry) - taken}"
            assert entry not in WORDS.get(word, ()), f"{family}: every family knows {word}"
        for word in specs[0].field:
            known = {word, *WORDS.get(word, ()), *targets(specs[0].spelling.get(word, []))}
            assert known & taken, f"{family}: {word} leads to no option"


def test_a_hub_folder_in_the_fields_words(tmp_path):
    args = {"init_values": 1e-5, "reg_tokens": 4, "act_layer": "silu", "depth": 1}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit", "model_args": args}))
    model = imgzoo.create_model(f"local-dir:{tmp_path}", act_layer="gelu", device="meta")
    assert model.model_args == {"layer_scale": 1e-5, "reg_tokens": 4, "act": "gelu", "depth": 1}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit", "model_args": {"embed_layer": "x"}}))
    with pytest.raises(OptionError, match=r"test_vit has no option 'embed_layer'; it takes .*embed_dim"):
        imgzoo.create_model(f"local-dir:{tmp_path}", device="meta")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit", "model_args": [1]}))
    with pytest.raises(WeightsError, match=r"'model_args' of config\.json must be a table"):
        imgzoo.create_model(f"local-dir:{tmp_path}", device="meta")


@pytest.mark.parametrize("gate", ["se", "ese", "eca", "ceca", "gc", "gca", "bat"])
def test_mobile_networks_take_every_gate(gate):
    assert imgzoo.create_model("test_efficientnet", device="meta", gate=gate).state_dict()
    with pytest.raises(UsageError, match="unknown attention 'none'"):
        imgzoo.create_model("test_efficientnet", device="meta", gate="none")


BUILDS = sorted({spec.load() for spec in registry("models").specs() if spec.plugin.startswith("archs")}, key=repr)


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_every_option_has_a_line_and_every_line_an_option(build):
    lines = lines_of(build)
    assert list(lines) == list(parameters_of(build)[0])
    assert not [option for option, line in lines.items() if not 3 < len(line) < 130]
    for cls in build.__mro__:
        if cls.__module__.startswith("imgzoo_archs"):
            taken = inspect.signature(cls.__init__).parameters
            assert not [word for word in documented(cls) if word not in taken], cls


def test_what_one_family_says_is_not_said_for_all():
    shown = [lines_of(build) for build in BUILDS]
    for option, line in LINES.items():
        assert any(lines.get(option) == line for lines in shown), f"no constructor shows the line of {option}"


def test_the_lines_of_a_class_stand_before_those_of_its_bases():
    class Base:
        """What it is.

        Args:
            width: the base's width
            depth: how many,
                as many as you like
        """

        def __init__(self, width=1, depth=2, more=3):
            pass

    class Net(Base):
        """Args:
        width: its own width
        """

        def __init__(self, width=2, **options):
            super().__init__(width, **options)

    lines = {"width": "its own width", "depth": "how many, as many as you like", "more": ""}
    assert lines_of(Net) == lines


def test_info_prints_the_options():
    run = CliRunner().invoke(command, ["test_vit", "--options"])
    assert run.exit_code == 0
    rows = {line.split()[0]: line for line in run.output.splitlines()}
    assert list(rows) == list(lines_of(imgzoo.get_spec("test_vit").load()))
    assert '"gelu"' in rows["act"] and "(in the field act_layer)" in rows["act"] and " 64 " in rows["embed_dim"]
    run = CliRunner().invoke(command, ["test_vit", "--options", "--json"])
    table = {row["option"]: row for row in json.loads(run.output)}
    assert table["embed_dim"]["value"] == 64 and table["layer_scale"]["field"][-1] == "ls_init_value"
    assert isinstance(CliRunner().invoke(command, ["adamw", "--kind", "optimizer", "--options"]).exception, UsageError)


UNSEEN = {"zero_init_last": "initial values", "zero_init_fc": "initial values",
          "fix_stem": "widths, where they are multiplied"}  # fmt: skip
"""Switches of constructors that change neither modules nor shapes of the catalog's networks, and what they change."""
PARTIAL = {
    "byoanet": "extra_conv", "byobnet": "extra_conv head_norm inverted", "cspnet": "cross_linear down_growth",
    "csatv2": "transformer_drop_path", "densenet": "aa_stem_only",
    "efficientnet": "gate_from_expanded", "eva": "attn_only_layer_scale", "fastvit": "layer_norm",
    "maxxvit": "block_attn conv_bias expand_first expand_output gate_early head_first pool_stride pre_norm_act "
               "shortcut_bias",
    "mobilenetv3": "gate_from_expanded head_bias", "naflexvit": "pool_include_prefix rope_columns_first rope_halves",
    "regnet": "linear_out",
    "vision_transformer": "diff_attn pool_include_prefix scale_attn_norm scale_mlp_norm", "vovnet": "residual",
}  # fmt: skip
"""Switches about a part that not every structure of a family has: gates, a kind of block, prefix tokens."""
ADDED = {"csatv2": {"drop_path_rate": 0.1}, "densenet": {"aa": "blur"}, "naflexvit": {"rope": "axial"}}
"""Options of a part that no structure of a family has."""


def shape(value, depth: int = 0):
    """What an attribute comes to, comparable: tensors as shapes, modules and functions as names."""
    if isinstance(value, (int, float, str, type(None))):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(shape(each, depth) for each in value)
    if isinstance(value, dict):
        return tuple((key, shape(each, depth)) for key, each in value.items())
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, partial):
        return shape((value.func, value.args, value.keywords), depth)
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    own = vars(value) if hasattr(value, "__dict__") and depth < 3 else {}
    return type(value).__name__, tuple((key, shape(each, depth + 1)) for key, each in own.items())


def form(model):
    """Every module with its attributes, parameters and buffers."""
    told = {"model_args"}
    return [
        (name, type(module).__qualname__, shape({k: v for k, v in vars(module).items() if k not in told}))
        for name, module in model.named_modules()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("family", STRUCTURES)
def test_switches_of_constructors_have_their_effect(family):
    """Whatever a constructor takes as true or false makes another network of every structure that has the part."""
    names = STRUCTURES[family]
    first = imgzoo.create_model(names[0], device="meta", **REDUCED.get(names[0], {}))
    taken = inspect.signature(type(first).__init__).parameters.values()
    switches = {each.name for each in taken if isinstance(each.default, bool)} - UNSEEN.keys()
    idle, active = set(), set()
    for name, more in [*((name, {}) for name in names), (names[0], ADDED.get(family, {}))]:
        for switch in switches:
            made = []
            for value in (False, True):
                with suppress(ImgzooError, ValueError):  # another option of the row may rule it out
                    options = {**REDUCED.get(name, {}), **more, switch: value}
                    made.append(form(imgzoo.create_model(name, device="meta", **options)))
            if len(made) == 2:
                (idle if made[0] == made[1] else active).add(switch)
    assert idle == set(PARTIAL.get(family, "").split()) and idle <= active
