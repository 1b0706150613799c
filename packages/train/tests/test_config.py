"""The configuration: typed, strict, and written back without loss."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgzoo.errors import ImgzooError, OptionError, UsageError
from imgzoo_train.config.flags import FLAGS
from imgzoo_train.config.settings import Config, nested, parse, parse_setting, rows


def test_a_saved_configuration_reads_back_equal(tmp_path):
    config = Config().merged(
        {
            "model": {"name": "resnet18", "options": {"depth": [1, 2], "act": "relu"}},
            "optim": {"lr": 0.3, "clip": 1},
            "run": {"ema": [0.9, 0.99], "output": 'a "quoted" \\ path\n\u2028\x7f'},
        },
        "test",
    )
    path = tmp_path / "config.toml"
    path.write_text(config.dump(), encoding="utf-8")
    assert Config.load(path) == config


def test_an_unknown_key_is_an_error_with_a_suggestion():
    with pytest.raises(OptionError, match=r"'optim.lrr' in here; did you mean lr\?"):
        Config().merged({"optim": {"lrr": 1}}, "here")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optim": {"lr": "fast"}}, "must be a number"),
        ({"optim": {"lr": True}}, "must be a number"),
        ({"optim": {"lr": float("nan")}}, "finite"),
        ({"optim": {"lr": -1}}, "at least 0"),
        ({"data": {"batch_size": 0}}, "at least 1"),
        ({"data": {"batch_size": 1.5}}, "whole number"),
        ({"run": {"seed": 2**64}}, "too large"),
        ({"run": {"precision": "fp8"}}, "one of 'fp32'"),
        ({"run": {"ema": 0.9}}, "must be a list"),
        ({"optim": 3}, "must be a table"),
        ({"model": {"options": [1]}}, "must be a table"),
        ({"version": 99}, "version 99"),
    ],
)
def test_a_wrong_value_is_one_sentence(values, words):
    with pytest.raises(UsageError, match=words) as caught:
        Config().merged(values, "here")
    assert "\n" not in str(caught.value)


def test_every_flag_names_a_setting_and_every_setting_a_section():
    settings_ = rows()
    assert set(FLAGS) <= set(settings_)
    spellings = [flag for flag, _ in FLAGS.values()]
    assert len(spellings) == len(set(spellings))
    without = {key for key in settings_ if key not in FLAGS}
    assert without == {"version"} | {key for key in settings_ if key.endswith((".options", ".augment"))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.lr=0.1", ("optim.lr", 0.1)),
        ("model.name=resnet18", ("model.name", "resnet18")),
        ("run.ema=[0.9]", ("run.ema", [0.9])),
        ("optim.options.nesterov=true", ("optim.options.nesterov", True)),
    ],
)
def test_a_setting_is_toml_or_text(text, expected):
    assert parse_setting(text) == expected


def test_settings_nest():
    assert nested({"a.b": 1, "a.c.d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    with pytest.raises(UsageError):
        nested({"a": 1, "a.b": 2})


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_a_configuration_or_one_clear_error(text):
    try:
        Config().merged(parse(text, "file"), "file")
    except ImgzooError as error:
        assert str(error)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(rows())), values)
def test_any_value_of_any_setting_is_taken_as_its_type_or_refused(key, value):
    try:
        config = Config().merged(nested({key: value}), "fuzz")
    except ImgzooError:
        return
    target = config
    for part in key.split("."):
        target = getattr(target, part)
    assert not (isinstance(target, float) and not math.isfinite(target))
