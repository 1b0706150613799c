"""Averages, freezing, adapters, batch-norm splits, precision and distillation."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from torch import nn
from train_toys import Batch, batches, cross_entropy, make_data, make_net, make_state

from imgzoo import create_model
from imgzoo.errors import UsageError
from imgzoo_train import freeze, unfreeze
from imgzoo_train.loop.distillation import Teacher, imitation
from imgzoo_train.loop.fit import fit
from imgzoo_train.loop.state import State
from imgzoo_train.techniques import adapters, batch_norm, scripting, small_maps
from imgzoo_train.techniques.averages import Average
from imgzoo_train.techniques.precision import create_precision


class Scalar(nn.Module):
    def __init__(self, value=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value]))
        self.register_buffer("count", torch.tensor([0]))


def test_the_average_follows_its_closed_form():
    net = Scalar()
    average = Average(net, 0.9, warmup=False)
    wanted = 0.0
    for step in range(20):
        with torch.no_grad():
            net.value.fill_(float(step))
            net.count.fill_(step)
        average.update(net)
        wanted = 0.9 * wanted + 0.1 * step
    assert average.tensors["value"].item() == pytest.approx(wanted, rel=1e-5)
    assert average.tensors["count"].item() == 19


def test_warmup_forgets_the_start_and_constant_weights_stay():
    net = Scalar(5.0)
    slow, warm = Average(net, 0.9999, warmup=False), Average(net, 0.9999)
    for average in (slow, warm):
        average.update(net)
        assert average.tensors["value"].item() == 5.0
    with torch.no_grad():
        net.value.fill_(1.0)
    for _ in range(50):
        slow.update(net)
        warm.update(net)
    assert slow.tensors["value"].item() > 4.9
    assert warm.tensors["value"].item() < 1.5


def test_the_plain_mean_begins_and_repeats_as_told():
    net = Scalar()
    average = Average(net, None, start=4, every=2)
    for step in range(1, 11):
        with torch.no_grad():
            net.value.fill_(float(step))
        average.update(net)
    assert average.updates == 3
    assert average.tensors["value"].item() == pytest.approx((6 + 8 + 10) / 3)


def test_applied_swaps_and_swaps_back():
    net = Scalar(1.0)
    average = Average(net, 0.5, warmup=False)
    with torch.no_grad():
        net.value.fill_(3.0)
    average.update(net)
    with average.applied(net):
        assert net.value.item() == 2.0
    assert net.value.item() == 3.0
    assert average.tensors["value"].item() == 2.0


def train(model, steps=5, **changes):
    state = State(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1), **changes)
    images, targets = make_data(40)
    fit(state, batches(images.repeat(1, 3, 4, 4), targets, 8), cross_entropy, None, steps)
    return state


def test_frozen_parameters_and_statistics_do_not_move():
    model = create_model("test_resnet", num_classes=4)
    adapters.freeze(model, ["backbone"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"fc.weight", "fc.bias"}


def test_parts_freeze_and_thaw_with_their_statistics():
    model = create_model("test_resnet", num_classes=4).train()
    freeze(model, ["layer1", "layer2"])
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    for each in (model.train(), copied.train()):
        still = {name for name, m in each.named_modules() if isinstance(m, nn.BatchNorm2d) and not m.training}
        assert still and all(name.startswith(("layer1", "layer2")) for name in still)
        assert each.layer3.training
    unfreeze(model, ["layer1"])
    assert model.layer1[0].bn1.training and not model.layer2[0].bn1.training
    assert {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad} == {"layer2"}
    unfreeze(model)
    assert all(m.training for m in model.modules()) and all(p.requires_grad for p in model.parameters())
    assert type(model.layer1[0].bn1) is type(create_model("test_resnet").layer1[0].bn1)
    with pytest.raises(UsageError, match="matches no parameter"):
        unfreeze(model, ["nothing like this"])


def test_freezing_by_name_and_by_kind():
    model = create_model("test_resnet", num_classes=4)
    adapters.freeze(model, ["norm", "conv1"])
    fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    norm_names = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norm_names <= fixed
    assert all("conv1" in name or name.rpartition(".")[0] + ".weight" in norm_names for name in fixed)
    with pytest.raises(UsageError, match="matches no parameter"):
        adapters.freeze(model, ["nothing like this"])


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_adapters_start_as_nothing_learn_alone_and_merge(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=4).eval()
    size = model.pretrained_cfg["input_size"]
    images = torch.randn(2, *size)
    before, keys = model(images).detach(), list(model.state_dict())
    base = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    adapted = adapters.add_lora(model, 2)
    assert adapted
    torch.testing.assert_close(model(images), before)

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), torch.tensor([0, 1])).backward()
        optimizer.step()
    head = {f"{model._heads()[0]}.weight", f"{model._heads()[0]}.bias"}
    for key, tensor in base.items():
        same = torch.equal(model.state_dict()[key], tensor)
        assert same or key in head, key
    after = model(images).detach()
    assert (after - before).abs().max() > 1e-3
    adapters.merge_lora(model)
    assert list(model.state_dict()) == keys
    torch.testing.assert_close(model(images), after, rtol=1e-4, atol=1e-5)


def test_each_split_has_statistics_of_its_own_and_they_come_off():
    torch.manual_seed(0)
    model = create_model("test_resnet", num_classes=4)
    keys = list(model.state_dict())
    batch_norm.split_batch_norm(model, 2)
    norm = next(m for m in model.modules() if hasattr(m, "aux_bn"))
    model.train()
    model(torch.cat([torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32) * 3 + 2]))
    assert not torch.allclose(norm.running_mean, norm.aux_bn[0].running_mean)
    model.eval()
    images = torch.randn(2, 3, 32, 32)
    before = model(images).detach()
    batch_norm.merge_split(model)
    assert list(model.state_dict()) == keys
    torch.testing.assert_close(model(images), before)


def through_a_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), through_a_file])
def test_techniques_combine_are_copied_and_come_off(copied):
    torch.manual_seed(0)
    model = create_model("test_resnet", num_classes=4)
    classes = [type(module) for module in model.modules()]
    keys = list(model.state_dict())
    adapters.add_lora(model, 2)
    batch_norm.split_batch_norm(model, 2)
    small_maps.protect(model)
    model.set_grad_checkpointing()
    images = torch.randn(4, 3, 32, 32)
    twin = copied(model)
    for each in (model, twin):
        torch.manual_seed(1)
        each.train()(images).sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None) == (not ours.requires_grad), name
        torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(twin.state_dict(), model.state_dict())
    twin.set_grad_checkpointing(False)
    small_maps.release(adapters.merge_lora(batch_norm.merge_split(twin)))
    assert [type(module) for module in twin.modules()] == classes and list(twin.state_dict()) == keys
    torch.testing.assert_close(twin.eval()(images), model.eval()(images), rtol=1e-4, atol=1e-5)


def test_the_fused_batch_norm_of_torch_takes_what_we_give_it():
    if batch_norm.fused is None:
        pytest.skip("this torch has no fused batch norm over ranks; the formula in Python serves")
    taken = list(inspect.signature(batch_norm.fused.forward).parameters)
    assert taken[1:] == ["input", "weight", "bias", "running_mean", "running_var", "eps", "momentum", "process_group",
                         "world_size"]  # fmt: skip


@pytest.mark.parametrize("name", ["bf16", "pure-bf16"])
def test_low_precision_trains(name):
    precision = create_precision(name, torch.device("cpu"))
    net = precision.prepare(make_net(drop=0.0))
    state = State(net, torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9), precision=precision)
    data = batches(*make_data(64), 16)

    def loss_fn(model, batch):
        return nn.functional.cross_entropy(model(precision.inputs(batch.images)).float(), batch.targets)

    first = loss_fn(net, data[0]).item()
    for _ in range(15):
        state.step = 0
        fit(state, data, loss_fn, None, 4)
    assert loss_fn(net, data[0]).item() < 0.7 * first
    assert next(net.parameters()).dtype == (torch.bfloat16 if name == "pure-bf16" else torch.float32)


def test_the_scaler_of_fp16_skips_an_overflow_and_saves_its_state():
    state = make_state()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    object.__setattr__(state, "precision", type(state.precision)(scaler=scaler))
    data = batches(*make_data(16), 8)
    before = {name: tensor.clone() for name, tensor in state.plain.named_parameters()}

    def overflow(model, batch):
        return cross_entropy(model, batch) * 1e35

    fit(state, data[:1], overflow, None, 1)
    assert all(torch.equal(parameter, before[name]) for name, parameter in state.plain.named_parameters())
    assert scaler.get_scale() < 2.0**20
    fit(state, data[1:], cross_entropy, None, 2)
    assert any(not torch.equal(parameter, before[name]) for name, parameter in state.plain.named_parameters())
    assert state.parts()["precision"]["scaler"]["scale"] == scaler.get_scale()


def test_a_teacher_sees_images_as_it_was_trained_to():
    student_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    teacher_cfg = {"mean": (0.4, 0.3, 0.2), "std": (0.2, 0.1, 0.3)}
    teacher = Teacher(nn.Identity(), student_cfg, teacher_cfg)
    pixels = torch.rand(2, 3, 4, 4)
    mean, std = (torch.tensor(teacher_cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(teacher.images((pixels - 0.5) / 0.5), (pixels - mean) / std, rtol=1e-5, atol=1e-5)
    assert not teacher.train().training


def test_imitation_is_zero_for_equal_logits_and_keeps_its_scale_over_temperatures():
    logits = torch.randn(5, 4)
    assert imitation(logits, logits, 3.0, False).item() == pytest.approx(0.0, abs=1e-6)
    other = logits + 0.3 * torch.randn(5, 4)
    cold, hot = (imitation(other, logits, temperature, False).item() for temperature in (1.0, 5.0))
    assert 0.2 < hot / cold < 5
    torch.testing.assert_close(
        imitation(other, logits, 1.0, True), nn.functional.cross_entropy(other, logits.argmax(1))
    )


@pytest.mark.parametrize("how", ["trace", "script"])
def test_torchscript_shares_its_parameters(how):
    model = create_model("test_resnet", num_classes=4)
    called = scripting.scripted(model.train(), how, torch.device("cpu"))
    called(torch.randn(2, *model.pretrained_cfg["input_size"])).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_indices_travel_with_batches():
    images, targets = make_data(10)
    rows = batches(images, targets, 4)
    assert torch.cat([row.indices for row in rows]).tolist() == list(range(10))
    assert isinstance(rows[0], Batch)


@pytest.mark.parametrize("fused", [False, True])
def test_state_loaded_into_channels_last_weights_goes_on_exactly(fused):
    """Fused kernels read optimizer state in the weight's layout; a loaded one has to have it again."""
    from imgzoo_train.files.packing import snapshot

    images, targets = make_data(64)
    data = batches(images.repeat(1, 3, 1, 1).to(memory_format=torch.channels_last), targets, 8)

    def make():
        torch.manual_seed(0)
        net = make_net(drop=0.0)
        net.conv = nn.Conv2d(3, 6, 3, padding=1)
        net = net.to(memory_format=torch.channels_last)
        return State(net, torch.optim.AdamW(net.parameters(), lr=0.05, fused=fused))

    whole, first, second = make(), make(), make()
    fit(whole, data, cross_entropy, None, 8)
    fit(first, data[:4], cross_entropy, None, 4)
    second.load(snapshot(first.parts()))
    fit(second, data[4:], cross_entropy, None, 8)
    for name, tensor in whole.plain.state_dict().items():
        assert torch.equal(tensor, second.plain.state_dict()[name]), name
