"""A `config.json` from outside, every field of it made wrong in every way: a model, or one typed sentence, soon."""

import copy
import json
import random
import time
import warnings

import pytest

import imgzoo
from imgzoo.errors import ImgzooError, WeightsError

VALUES = [
    None, True, -1, 0, 1, 1.5, 1e6, 1e9, 10**12, float("nan"), float("inf"), "", "x", "../../etc", "9" * 5000, [],
    [1e9], [1, 2, 3], [-1], [[1]], ["a"] * 3, [3, 20000, 20000], [3, -1, 4], [[[[[[[[[[1]]]]]]]]]], [1] * 2000,
    {}, {"a": 1},
]  # fmt: skip
OPTIONS = ("layers", "depth", "in_chans", "img_size", "block", "embed_dim", "num_heads", "patch_size", "unknown")


def fields(table, above=()):
    for key, value in table.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from fields(value, (*above, key))


def mutations(config, count, seed):
    """Copies of a configuration with one field set to something else."""
    places = [*fields(config), *(("model_args", key) for key in OPTIONS)]
    places += [("imgzoo", key) for key in ("model_args", "range", "sequence", "task", "planted")]
    chosen = [(place, value) for place in places for value in VALUES]
    for place, value in random.Random(seed).sample(chosen, count):
        changed = copy.deepcopy(config)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        yield place, value, changed


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_any_field_may_be_wrong(tmp_path, name):
    imgzoo.save_model(imgzoo.create_model(name), tmp_path)
    file = tmp_path / "config.json"
    for place, value, config in mutations(json.loads(file.read_text()), 150, seed=len(name)):
        file.write_text(json.dumps(config))
        start = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                imgzoo.create_model(tmp_path, pretrained=True)
        except ImgzooError as error:
            assert "\n" not in str(error), (place, value)
        except Exception as error:
            pytest.fail(f"{place} = {str(value)[:60]}: {type(error).__name__}: {error}")
        assert time.process_time() - start < 5, (place, value)


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("model_args", "layers", [1e9], "'layers' of config.json must be a number to 1000"),
        ("model_args", "in_chans", 1e6, "'in_chans'"),
        ("model_args", "img_size", 20000, "'img_size' of config.json must be one side"),
        ("pretrained_cfg", "input_size", [3, 20000, 20000], "'input_size'"),
        ("pretrained_cfg", "mean", "gray", "'mean' of config.json must be numbers"),
        ("imgzoo", "run", "rm", "'imgzoo.run' of config.json must be left out"),
    ],
)
def test_sizes_are_limited_and_unknown_fields_refused(tmp_path, section, key, value, words):
    imgzoo.save_model(imgzoo.create_model("test_resnet"), tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    config[section][key] = value
    file.write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=words):
        imgzoo.create_model(tmp_path, pretrained=True)
