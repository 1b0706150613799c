"""Options of networks without sense: every value of every option of every family is refused in one sentence, or works.

On the meta device, where nothing costs memory.
"""

import math
import re
import sys
from pathlib import Path

import pytest
import torch

import imgzoo
from imgzoo.errors import CapabilityError, ImgzooError, OptionError, UsageError
from imgzoo.options import DEPTHS, NETWORK_RANGES, check_network, is_of, kinds_of, parameters_of
from imgzoo.registry import registry

sys.path.insert(0, str(Path(__file__).parent / "parity"))
from small import QUICK, image

REFUSED = (math.nan, math.inf, -1, -0.5)
"""Values that no option takes; most are refused before anything is built."""
OTHERS = (0, 1.5, "nonsense", "", {}, (), (0,), (-1, -1, -1, -1), (1,), True)
ROWS = [spec for spec in registry("models").specs() if spec.plugin.startswith("archs")]


@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
def test_numbers_without_sense_are_refused(name, options):
    for option in kinds_of(imgzoo.get_spec(name).load()):
        for value in REFUSED:
            if option == "backbone_level" and value == -1:
                continue
            with pytest.raises(ImgzooError):
                imgzoo.create_model(name, device="meta", **{**options, option: value})


@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
def test_lists_of_stages_are_of_one_length_or_refused(name, options):
    """One that is longer or shorter than the others gives no network of other stages in silence."""
    build = imgzoo.get_spec(name).load()
    row = {key: each.default for key, each in parameters_of(build)[0].items()} | dict(imgzoo.get_spec(name).kwargs)
    row |= options
    lists = {key: tuple(value) for key, value in row.items() if isinstance(value, (list, tuple)) and value}
    depths = next((key for key in DEPTHS if key in lists), None)
    for option in [key for key, value in lists.items() if depths and len(value) == len(lists[depths])]:
        for value in (lists[option][:-1], (*lists[option], lists[option][-1])):
            others = [key for key in lists if key != option and len(lists[key]) == len(lists[option])]
            if not others or not value:
                continue
            with pytest.raises(UsageError, match=r"has \d+ entries and .* give one a stage"):
                imgzoo.create_model(name, device="meta", **{**options, option: value})


UNMADE = {"halonet_h1": ["gate"]}
"""Options of parts that a network has none of."""


@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
def test_words_that_are_not_known_are_refused(name, options):
    """No form of a part stands for every other word."""
    spec = imgzoo.get_spec(name)
    for option, each in parameters_of(spec.load())[0].items():
        usual = spec.kwargs.get(option, each.default)
        many = isinstance(usual, (list, tuple)) and len(usual) > 0 and all(isinstance(word, str) for word in usual)
        word = ["nonsense"] * len(usual) if many else "nonsense"
        if (many or is_of(word, kinds_of(spec.load())[option])) and option not in UNMADE.get(name, ()):
            with pytest.raises(ImgzooError):
                imgzoo.create_model(name, device="meta", **{**options, option: word})


STRIDED = [name for name in QUICK if "output_stride" in imgzoo.get_spec(name).capabilities]


@pytest.mark.parametrize("name", STRIDED)
def test_an_output_stride_is_had_or_refused(name):
    for stride in (1, 2, 4, 7, 8, 12, 16, 32, 33, 64):
        try:
            model = imgzoo.create_model(name, device="meta", **{**QUICK[name], "output_stride": stride})
        except UsageError as error:
            assert "use 8, 16 or 32" in str(error) and stride not in (8, 16, 32)
            continue
        assert max(model.feature_info.reduction()) == stride


@pytest.mark.slow
@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
def test_every_value_is_refused_in_a_sentence_or_builds(name, options):
    for option in kinds_of(imgzoo.get_spec(name).load()):
        for value in OTHERS:
            try:
                imgzoo.create_model(name, device="meta", **{**options, option: value})
            except ImgzooError as error:
                assert "\n" not in str(error) and len(str(error)) < 600, error
                continue
            assert not option.endswith("_rate") or 0 <= value < 1, f"{option}={value} is taken"
            if value == 0 and not isinstance(value, bool):
                assert option not in NETWORK_RANGES or NETWORK_RANGES[option].has(0), f"{option}=0 is taken"


@pytest.mark.slow
@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
def test_widths_that_do_not_divide_into_heads_are_refused(name, options):
    for option in kinds_of(imgzoo.get_spec(name).load()):
        if "heads" not in option and option not in ("head_dim", "group_size", "groups", "key_dim", "cardinality"):
            continue
        for value in (7, 5, (7,) * 3, (7,) * 4):
            try:
                model = imgzoo.create_model(name, device="meta", **{**options, option: value}).eval()
            except ImgzooError:
                continue
            model(image(model, 1).to("meta"))


def test_rows_of_the_catalog_are_what_constructors_declare():
    for spec in ROWS:
        build = spec.load()
        defaults = {name: each.default for name, each in parameters_of(build)[0].items() if each.default != each.empty}
        for row in (defaults, spec.kwargs, *(weights.kwargs for weights in spec.weights)):
            check_network(spec.name, build, {name: value for name, value in row.items() if value is not None})


@pytest.mark.parametrize("name", ["res2net50_26w_4s", "resnest14d"])
def test_what_a_family_settles_is_no_option_of_it(name):
    build = imgzoo.get_spec(name).load()
    assert "block" in parameters_of(build.__base__)[0] and "block" not in parameters_of(build)[0]
    with pytest.raises(OptionError, match="block"):
        imgzoo.create_model(name, device="meta", block="basic")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"drop_rate": -0.1}, r"test_vit: drop_rate must be a number in \[0, 1\), got -0.1"),
        ({"num_heads": 7}, "64 does not divide into 7 heads"),
        ({"embed_dim": 0}, "embed_dim must be a finite number of at least 1, got 0"),
        ({"depth": 1.5}, "depth is a whole number, not 1.5"),
        ({"qkv_bias": "yes"}, "qkv_bias is true or false, not 'yes'"),
        ({"mlp": "wide"}, "^test_vit: mlp has no 'wide'; see imgzoo info test_vit --options"),
    ],
)
def test_what_is_said(options, says):
    with pytest.raises(UsageError, match=says):
        imgzoo.create_model("test_vit", device="meta", **options)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("resnet18", {"layers": (1, 1, 1), "channels": (32, 48, 48)}, "blocks of 4 stages, not of 3"),
        ("legacy_seresnet18", {"layers": (2, 2, 2, 2, 2)}, "blocks of 4 stages, not of 5"),
        ("legacy_seresnet18", {"down_kernel": 2}, "down_kernel is odd"),
        ("inception_next_atto", {"branch_ratio": 0.5}, "branch_ratio is at most a third"),
        ("inception_next_atto", {"band_kernel": 18}, "band_kernel odd"),
        ("cs3darknet_focus_s", {"block_ratio": 1.0}, "block_ratio is half of expand_ratio"),
        ("crossvit_9_240", {"img_size": 7}, "has no whole patch"),
        ("resnetv2_18", {"preact": False}, "basic blocks are normalized first"),
        ("ecaresnet50d_pruned", {"pruned": "../facts"}, "pruned is one of ecaresnet101d_pruned, ecaresnet50d_pruned"),
        ("convnext_atto", {"depths": (2, 2, 6)}, "dims has 4 entries and depths 3: give one a stage"),
        ("convnext_atto", {"norm": "groupnorm"}, "norm is layernorm, .*, not 'groupnorm'"),
        ("convnext_tiny", {"norm": "batchnorm"}, "batchnorm with conv_mlp=True"),
    ],
)
def test_networks_that_no_image_would_pass_are_refused(name, options, says):
    with pytest.raises(UsageError, match=says):
        imgzoo.create_model(name, device="meta", **options)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("dla46x_c", {"channels": [20] * 6},
         r"with channels=\[20.*\], cardinality=32.*: a layer of 32 groups has 16 channels; it needs a multiple of 32"),
        ("dla46x_c", {"channels": [3] * 6}, r"with channels=\[3.*cardinality=32.* has no channels left; give more"),
        ("res2next50", {"channels": (3,) * 4}, "layer1.0.conv1 has no channels left"),
        ("test_byobnet", {"dims": (3,) * 4}, "has 8 channels, which is less than a group of them"),
        ("test_byobnet", {"group_size": 7}, "with group_size=7: a layer of 9 groups has 64 channels"),
        ("dpn48b", {"hidden": 20, "num_classes": 3}, "with hidden=20: a layer of 32 groups has 20 channels"),
        ("mobilenetv3_small_050", {"group_size": 7}, "with group_size=7: 16 channels do not divide into groups of 7"),
        ("test_resnet", {"norm": "groupnorm"}, "with norm='groupnorm': a layer of 32 groups has 16 channels"),
        ("regnetx_002", {"norm_group": 8}, "norm 'batchnorm' takes no group_size; those that do are groupnorm"),
        ("regnetx_002", {"w0": 3}, "a stage of 0 channels has none inside: w0 is above 4"),
        ("skresnet18", {"channels": (3,) * 4}, "3 channels do not divide into 2 paths: give even ones"),
        ("swin_tiny_patch4_window7_224", {"embed_dim": 1}, "with embed_dim=1: 3 heads of 0 channels cannot attend"),
        ("coat_tiny", {"embed_dims": (20,) * 4}, "the width 20 does not divide into 8 heads"),
        ("efficientvit_m1", {"embed_dim": (31,) * 3}, r"the width 31 does not divide into \d heads"),
        ("shvit_s1", {"embed_dim": (20,) * 3}, "48 of 20 channels cannot attend: partial_dim is at most"),
        ("iformer_t", {"attn_groups": (1,) * 4}, "stage 0 attends .attn_groups., so its head_reductions is at least 1"),
        ("nextvit_small", {"dims_attend": (1,) * 4}, "32 of 1 channels attend and none is left to convolve"),
    ],
)  # fmt: skip
def test_channels_below_their_groups_name_the_option_and_the_multiple(name, options, says):
    with pytest.raises(UsageError, match=says) as caught:
        imgzoo.create_model(name, device="meta", **options)
    assert "num_classes" not in str(caught.value)


CHANNELS = re.compile("channels|dim|width|group|cardinality|radix|hidden|features")


@pytest.mark.slow
@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
def test_channels_that_no_layer_takes_are_refused(name, options):
    """Odd, small or ungrouped channels build a network that runs, or are refused by a layer, not by its crash."""
    row = {key: each.default for key, each in parameters_of(imgzoo.get_spec(name).load())[0].items()}
    row |= dict(imgzoo.get_spec(name).kwargs) | options
    for option in filter(CHANNELS.search, row):
        for value in (1, 3, 20, 0.01):
            given = row[option]
            made = type(given)(value for _ in given) if isinstance(given, (list, tuple)) else value
            try:
                model = imgzoo.create_model(name, device="meta", **{**options, option: made}).eval()
            except ImgzooError as error:
                assert "Error" not in str(error), error
                continue
            with torch.no_grad():
                model(image(model, 2).to("meta"))


@pytest.mark.parametrize("name", QUICK)
def test_classes_of_a_map_are_those_of_each_place_or_refused(name):
    """Without a pool a classifier answers at every place, or the network is refused when it is made or changed."""
    made = {key: value for key, value in QUICK[name].items() if key not in ("num_classes", "global_pool")}
    try:
        model = imgzoo.create_model(name, device="meta", num_classes=3, global_pool="", **made).eval()
    except UsageError as error:
        assert "global_pool" in str(error)
        model = imgzoo.create_model(name, device="meta", num_classes=5, **made).eval()
        with pytest.raises(UsageError, match="global_pool"):
            model.reset_classifier(3, "")
        assert model.num_classes == 5 and model.pool_kind()
        return
    answer = model(image(model, 2).to("meta"))
    for each in answer if isinstance(answer, tuple) else (answer,):
        assert each.ndim > 2 and 3 in (each.shape[1], each.shape[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_words_of_pooling_are_refused_or_give_classes(name):
    """Words of the field for pooling that a family does not offer are refused when the network is made."""
    for word in ("catavgmax", "fast", "fastavg", "map", "token", "median", "max"):
        try:
            model = imgzoo.create_model(name, device="meta", num_classes=3, global_pool=word, **QUICK[name]).eval()
        except (UsageError, CapabilityError):
            continue
        logits = model(image(model, 2).to("meta"))
        assert (logits[0] if isinstance(logits, tuple) else logits).shape == (2, 3), word
