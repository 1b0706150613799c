"""Weight averages of half-precision weights move, are lent without loss, and come back from a file."""

import resource

import pytest
import torch
from torch import nn

import imgzoo
from imgzoo.errors import UsageError
from imgzoo_train.files.storage import StorageError
from imgzoo_train.models.averaging import load_weights, write_weights
from imgzoo_train.techniques.averages import Average, rounded_at_random


def filled(value, dtype=torch.bfloat16):
    model = nn.Linear(64, 64).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


@pytest.mark.parametrize("precision", ["float32", "stochastic"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("decay", [0.99, 0.999, 0.9998])
def test_averages_of_half_precision_move(decay, dtype, precision):
    average = Average(filled(1.0, dtype), decay, warmup=False, precision=precision)
    model = filled(2.0, dtype)
    for _ in range(600):
        average.update(model)
    found = average.tensors["weight"].float()
    wanted = 2 - decay**600
    assert found.mean().item() == pytest.approx(wanted, abs=0.02)
    if precision == "float32":
        assert (found - wanted).abs().max() < 1e-4


def test_rounding_at_random_keeps_the_mean_and_stays_beside_the_value():
    generator = torch.Generator().manual_seed(0)
    x = torch.full((20000,), 1.0 + 0.3 * 2**-7)
    found = rounded_at_random(x, torch.bfloat16, generator).float()
    assert set(found.tolist()) == {1.0, 1.0 + 2**-7}
    assert found.mean().item() == pytest.approx(x[0].item(), abs=1e-4)
    exact = torch.tensor([0.0, -1.5, 65280.0])
    assert torch.equal(rounded_at_random(exact, torch.bfloat16, generator).float(), exact)
    below = rounded_at_random(-x, torch.bfloat16, generator).float()
    assert set(below.tolist()) == {-1.0, -1.0 - 2**-7}


@pytest.mark.parametrize("precision", ["float32", "stochastic"])
def test_lending_an_average_changes_neither_side(precision):
    average = Average(filled(1.0), 0.99, warmup=False, precision=precision)
    model = filled(2.0)
    for _ in range(50):
        average.update(model)
    before = {name: tensor.clone() for name, tensor in average.tensors.items()}
    with average.applied(model):
        assert model.weight.dtype == torch.bfloat16
        torch.testing.assert_close(model.weight.float(), before["weight"].float(), rtol=2**-8, atol=0)
    assert torch.equal(model.weight, torch.full_like(model.weight, 2.0))
    for name, tensor in average.tensors.items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("saved", ["float32", "stochastic"])
@pytest.mark.parametrize("loaded", ["float32", "stochastic"])
def test_an_average_is_loaded_into_either_precision(saved, loaded):
    model = filled(2.0)
    first = Average(filled(1.0), 0.99, warmup=False, precision=saved)
    for _ in range(50):
        first.update(model)
    second = Average(model, 0.99, warmup=False, precision=loaded)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second.tensors["weight"].float(), first.tensors["weight"].float(), rtol=2**-8, atol=0)


def test_an_unknown_precision_is_one_sentence():
    with pytest.raises(UsageError, match="float32 or stochastic"):
        Average(filled(1.0), 0.99, precision="bf16")


@pytest.mark.parametrize("name", ["mean", "mean.safetensors"])
def test_a_disk_that_is_full_is_named_with_the_file(tmp_path, name):
    model = imgzoo.save_model(imgzoo.create_model("test_resnet", num_classes=2), tmp_path / "model")
    weights = load_weights(model).weights
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageError, match=rf"cannot write .*{name} \(File too large\); choose another --output"):
            write_weights(weights, model, tmp_path / name)
        with pytest.raises(OSError, match="File too large"):
            imgzoo.save_model(imgzoo.create_model("test_resnet"), tmp_path / "other")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.glob("mean*/*"))
