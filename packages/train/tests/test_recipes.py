"""Recipes: each names its command, cost and accuracy, and every part it asks for can be built."""

import pytest
import torch
from train_toys import make_net

from imgzoo_train.config.recipes import describe_recipes, load_recipe, recipe_files
from imgzoo_train.config.settings import Config, parse
from imgzoo_train.runs import assembly

RECIPES = sorted(recipe_files())


@pytest.mark.parametrize("name", RECIPES)
def test_every_part_of_a_recipe_can_be_built(name):
    from imgzoo_data import create_transform

    about = parse(recipe_files()[name], name)["about"]
    assert set(about) == {"what", "command", "cost", "expect", "source"}
    assert f"--recipe {name.partition('@')[0]} " in about["command"]
    config = Config().merged(load_recipe(name), name)
    create_transform({"input_size": (3, 32, 32)}, training=True, **config.data.augment)
    net = make_net()
    config.optim.layer_decay = None
    state = assembly.build_state(
        config.merged({"model": {"freeze": []}, "run": {"device": "cpu"}}, "x"), net, assembly.World(), 10
    )
    schedule = assembly.build_schedule(config, state, 10)
    rates = [schedule(update) for update in range(0, config.run.epochs * 10, 10)]
    assert max(rates) <= config.optim.lr * 1.0001
    assert rates[-1] < 0.3 * config.optim.lr

    class Sources:
        classes, train = 4, [0] * 10

    loss = assembly.build_loss(config, Sources(), state)
    from train_toys import Batch

    assert torch.isfinite(loss(net, Batch(torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3]))))


def test_the_newest_version_is_the_default_and_an_unknown_name_gets_near_ones():
    from imgzoo.errors import UnknownNameError

    assert load_recipe("digits") == load_recipe("digits@1")
    with pytest.raises(UnknownNameError, match="resnet-a1"):
        load_recipe("resnet-a4")
    assert all(name in describe_recipes() for name in RECIPES)
