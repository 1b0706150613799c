"""Networks are made and loaded under torch's modes: inference, a default device, another default dtype."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import imgzoo
from imgzoo.loading.files import read_state


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_made_in_inference_mode(name):
    """Weights are drawn on threads, which have modes of their own."""
    with torch.inference_mode():
        model = imgzoo.create_model(name)
        assert all(parameter.is_inference() for parameter in model.parameters())
        model(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_made_and_loaded_on_the_default_device(name, tmp_path):
    """Files are read on the CPU, whatever the default device is; the network then stands on it."""
    imgzoo.save_model(imgzoo.create_model(name), tmp_path)
    with torch.device("meta"):
        made = imgzoo.create_model(name)
        loaded = imgzoo.create_model(f"local-dir:{tmp_path}")
    for model in (made, loaded):
        assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}


@pytest.mark.parametrize("ending", ["safetensors", "pth", "npz"])
def test_files_are_read_on_the_cpu(tmp_path, ending):
    path, state = tmp_path / f"a.{ending}", {"a": torch.ones(3), "none": torch.ones(0)}
    if ending == "safetensors":
        save_file(state, path)
    elif ending == "pth":
        torch.save(state, path)
    else:
        np.savez(path, **{key: value.numpy() for key, value in state.items()})
    with torch.device("meta"):
        found = read_state(path)
    assert {tensor.device.type for tensor in found.values()} == {"cpu"}
