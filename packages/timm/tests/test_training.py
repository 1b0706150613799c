"""Helpers of training scripts: schedules, averages, frozen parts, split norms."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

import imgzoo_timm as timm
from imgzoo_layers.norm import FrozenBatchNorm2d
from imgzoo_timm.data._mixup import rand_bbox_minmax
from imgzoo_timm.layers import BatchNormAct2d, PatchEmbed, convert_splitbn_model, resample_abs_pos_embed
from imgzoo_timm.models import create_model
from imgzoo_timm.scheduler import create_scheduler_v2
from imgzoo_timm.utils import AverageMeter, ModelEmaV3, freeze, unfreeze


@pytest.mark.parametrize(
    ("options", "decay", "timescale"),
    [
        ({"sched": "wsd", "num_epochs": 105, "warmup_epochs": 5}, 20, None),
        ({"sched": "wsd", "num_epochs": 100, "warmup_epochs": 5, "warmup_prefix": True}, 20, None),
        ({"sched": "wsd", "num_epochs": 105, "warmup_epochs": 5, "decay_epochs": 0.2}, 20, None),
        ({"sched": "wsd", "num_epochs": 23}, 5, None),
        ({"sched": "rsqrt", "num_epochs": 100, "warmup_epochs": 5}, 19, 5),
        ({"sched": "rsqrt", "num_epochs": 10, "warmup_epochs": 2, "stable_timescale": 4, "step_on_epochs": False,
          "updates_per_epoch": 10}, 16, 40),
    ],
)  # fmt: skip
def test_stable_schedules_decay_over_a_share_of_what_is_not_warm_up(options, decay, timescale):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    made, epochs = create_scheduler_v2(optimizer, **options)
    prefix = options.get("warmup_prefix", False)
    assert (made.decay_t, made.stable_timescale) == (decay, timescale)
    assert epochs == options["num_epochs"] + prefix * options.get("warmup_epochs", 0)


def test_a_constant_rate_warms_up():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    made, _ = create_scheduler_v2(optimizer, "constant", 10, warmup_epochs=2, warmup_lr=0.01)
    assert [made._get_lr(t)[0] for t in (0, 1, 2, 9)] == pytest.approx([0.01, 0.055, 0.1, 0.1])


def test_each_update_of_a_bfloat16_average_rounds_by_numbers_of_its_own():
    torch.manual_seed(0)
    model = nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
    nn.init.ones_(model.weight)
    ema = ModelEmaV3(model, decay=0.999)
    with torch.no_grad():
        model.weight.fill_(2.0)
    for _ in range(100):
        ema.update(model)
    expected = 2 - 0.999**100
    assert ema.module.weight.float().mean().item() == pytest.approx(expected, rel=5e-3)


def test_optimizers_are_made_one_way():
    weights = [nn.Parameter(torch.ones(4, 4))]
    for word in ("capturable", "differentiable"):
        name = "adamwlegacy" if word == "capturable" else "sgdw"
        timm.optim.create_optimizer_v2(weights, name, lr=0.1, **{word: False})
        with pytest.raises(TypeError, match=f"is not {word} here"):
            timm.optim.create_optimizer_v2(weights, name, lr=0.1, **{word: True})
        with pytest.raises(TypeError, match=f"is not {word} here"):
            timm.optim.get_optimizer_class(name)(weights, lr=0.1, **{word: True})


def test_words_of_an_optimizer_are_checked_when_it_is_made():
    with pytest.raises(ValueError, match="adjust_lr_fn is"):
        timm.optim.muon.Muon([nn.Parameter(torch.ones(4, 4))], adjust_lr_fn="rsqrt_out")


@pytest.mark.parametrize("name", ["adahessian", "lookahead_adahessian", "lookahead_adamw"])
def test_optimizers_tell_whether_they_need_second_derivatives(name):
    made = timm.optim.create_optimizer_v2([nn.Parameter(torch.ones(4))], name, lr=0.1)
    assert made.is_second_order is ("adahessian" in name)


def test_a_file_that_is_not_read_is_told(tmp_path):
    model, path = nn.Linear(2, 2), str(tmp_path / "own.pth")
    torch.save({"state_dict": model.state_dict(), "args": AverageMeter()}, path)
    for read in (timm.models.load_state_dict, timm.utils.load_checkpoint_metadata,
                 lambda path: timm.models.resume_checkpoint(model, path, weights_only=False),
                 lambda path: timm.models.load_checkpoint(create_model("test_vit"), path),
                 lambda path: timm.utils.ModelEma(model, resume=path)):  # fmt: skip
        with pytest.raises(RuntimeError, match=r"AverageMeter.*nothing in a file is run"):
            read(path)
    numpy = {"state_dict_ema": model.state_dict(), "metric": np.float64(0.5)}  # scripts keep such scores
    torch.save(numpy, path)
    assert timm.utils.load_checkpoint_metadata(path)["metric"] == 0.5
    timm.utils.ModelEma(model, resume=path)


def test_what_the_root_holds_itself_is_frozen_too():
    model = create_model("test_vit")
    freeze(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    unfreeze(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_norms_with_activation_split_under_their_own_keys():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct2d(4)).eval()
    keys, x = set(model.state_dict()), torch.randn(2, 3, 5, 5)
    before = model(x)
    split = convert_splitbn_model(model)
    assert keys <= set(split.state_dict()) and not split[1].training
    torch.testing.assert_close(split(x), before)


def test_boxes_reach_the_far_edge_and_means_of_nothing_are_zero():
    np.random.seed(0)
    top, bottom, left, right = rand_bbox_minmax((3, 3), (0.4, 0.8), count=200)
    assert bottom.max() == right.max() == 3 and top.min() == left.min() == 0
    meter = AverageMeter()
    meter.update(1.0, n=0)
    assert meter.avg == 0


def test_a_grid_of_as_many_places_in_another_shape_is_resampled():
    table = torch.randn(1, 1 + 16, 8)
    assert resample_abs_pos_embed(table, [4, 4]) is table
    wide = resample_abs_pos_embed(table, [2, 8])
    assert wide.shape == table.shape and not torch.equal(wide, table)
    assert not torch.equal(resample_abs_pos_embed(wide, [4, 4], [2, 8]), wide)


def test_resized_patches_stay_in_their_mode():
    embed = PatchEmbed(32, 8, 3, 16).eval()
    embed.proj.weight.requires_grad_(False)
    embed.set_input_size(patch_size=4)
    assert not embed.proj.training and not embed.proj.weight.requires_grad


def test_layers_have_their_share_of_the_rate_as_in_the_field():
    model = timm.create_model("test_resnet", num_classes=3)
    for name in ("adamw", "lookahead_sgd"):
        optimizer = timm.optim.create_optimizer_v2(model, name, lr=0.1, weight_decay=0.05, layer_decay=0.5)
        groups = optimizer.param_groups
        assert {group["lr"] for group in groups} == {0.1} and len({group["lr_scale"] for group in groups}) > 2
        place = [id(value) for value in model.parameters()]
        firsts = [place.index(id(group["params"][0])) for group in groups]
        assert firsts == sorted(firsts)
        scheduler, _ = timm.scheduler.create_scheduler_v2(optimizer, num_epochs=2, warmup_epochs=0)
        scheduler.step(0)
        assert all(group["lr"] == pytest.approx(0.1 * group["lr_scale"]) for group in groups)


def test_initial_values_are_the_fields_under_a_seed():
    torch.manual_seed(3)
    drawn = timm.layers.trunc_normal_(torch.empty(4), std=0.02)
    torch.manual_seed(3)
    uniform = torch.rand(4) * 2 - 1
    torch.testing.assert_close(drawn, uniform.erfinv() * 0.02 * 2**0.5)
    cut = timm.layers.trunc_normal_tf_(torch.empty(1000), mean=1.0, std=0.5, a=-1, b=1)
    assert cut.min() >= 0.5 and cut.max() <= 1.5


def test_a_plateau_rests_no_cooldown_epochs():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    plateau, _ = timm.scheduler.create_scheduler_v2(
        optimizer, "plateau", patience_epochs=0, decay_rate=0.5, cooldown_epochs=5
    )
    for epoch in range(4):
        plateau.step(epoch, 1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)


def test_noise_of_a_plateau_begins_after_its_warm_up():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    made, _ = create_scheduler_v2(optimizer, "plateau", 10, warmup_epochs=2, warmup_lr=0.02, noise=0.0)
    rates = []
    for epoch in range(4):
        made.step(epoch, 0.5)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:3] == pytest.approx([0.02, 0.06, 0.1]) and rates[3] != pytest.approx(0.1)


def test_warm_up_before_no_schedule_counts():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    assert create_scheduler_v2(optimizer, "none", 10, warmup_epochs=2, warmup_prefix=True) == (None, 12)


def test_a_frozen_norm_is_of_the_class_that_clients_ask_for(monkeypatch):
    kind = pytest.importorskip("torchvision.ops.misc").FrozenBatchNorm2d
    model, x = timm.create_model("test_resnet", num_classes=3).eval(), torch.randn(2, 3, 64, 64)
    wanted, keys = model(x), set(model.state_dict())
    timm.utils.freeze(model)
    assert timm.utils.model.FrozenBatchNorm2d is timm.layers.norm_act.FrozenBatchNorm2d is kind
    assert isinstance(model.bn1, kind) and not any(each.requires_grad for each in model.parameters())
    assert keys - set(model.state_dict()) == {key for key in keys if key.endswith("num_batches_tracked")}
    torch.testing.assert_close(model.train()(x), wanted)
    timm.utils.unfreeze(model)
    assert type(model.bn1) is torch.nn.BatchNorm2d and set(model.state_dict()) == keys
    torch.testing.assert_close(model.eval()(x), wanted)
    monkeypatch.setitem(sys.modules, "torchvision.ops.misc", None)
    monkeypatch.delitem(sys.modules, "imgzoo_timm.layers._frozen")
    timm.utils.freeze(model)
    assert type(model.bn1) is FrozenBatchNorm2d
    torch.testing.assert_close(model(x), wanted)
