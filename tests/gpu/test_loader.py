"""Batches on a GPU are the CPU's, prepared on a stream of their own; nothing waits."""

import numpy as np
import pytest
import torch

import imgzoo
from imgzoo_data import DataConfig, Mixer, create_loader, create_transform

CONFIG = DataConfig(input_size=(3, 48, 48))


class Noise(torch.utils.data.Dataset):
    """Images of noise, which no two transforms make alike."""

    def __len__(self):
        return 96

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        return rng.integers(0, 256, (64, 80, 3), np.uint8), index % 10


def batches(device, training=True, mixer=None, busy=False, **options):
    views = {key: options.pop(key) for key in ("erase", "erase_mode") if key in options}
    transform = create_transform(CONFIG, training=training, **views)
    loader = create_loader(Noise(), transform, 16, training=training, device=device, mixer=mixer, **options)
    found = []
    load = torch.randn(2048, 2048, device=device) if busy else None
    for batch in loader:
        for _ in range(20 if busy else 0):
            load = load @ load
            load = load / load.norm()
        found.append((batch.images.cpu(), batch.targets.cpu(), torch.as_tensor(batch.indices)))
    return found


def assert_alike(found, truth, tolerance=1e-5):
    assert len(found) == len(truth)
    for left, right in zip(found, truth, strict=True):
        for a, b in zip(left, right, strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_batches(device, mode, workers):
    mixing = {"mixer": Mixer(10, 0.8, 1.0, smoothing=0.1), "erase": 0.5, "erase_mode": mode}
    truth = batches("cpu", **mixing)
    assert_alike(batches(device, workers=workers, **mixing), truth)
    assert_alike(batches(device, workers=workers, busy=True, channels_last=True, **mixing), truth)


def test_evaluation(device):
    assert_alike(batches(device, training=False, busy=True), batches("cpu", training=False))


def test_bytes(device):
    transform = create_transform(CONFIG, training=False)
    for batch in create_loader(Noise(), transform, 16, device=device, normalize=False):
        assert batch.images.dtype == torch.uint8 and batch.images.device.type == device.type


def test_sequences(device):
    views = {"sequence": (16, 16), "erase": 0.5, "erase_mode": "pixel"}
    found = []
    for where in ("cpu", device):
        transform = create_transform(CONFIG, training=True, **views)
        loader = create_loader(
            Noise(), transform, 16, training=True, device=where, mixer=Mixer(10, 0.8, 1.0), steps_per_epoch=4
        )
        found.append([[part.cpu() for part in batch.images] + [batch.targets.cpu()] for batch in loader])
    assert_alike(found[1], found[0])


def test_nobody_waits(cuda, unwatched):
    mixer = Mixer(10, 0.8, 1.0, smoothing=0.1)
    transform = create_transform(CONFIG, training=True, erase=0.5, erase_mode="pixel")
    loader = iter(create_loader(Noise(), transform, 16, training=True, device=cuda, mixer=mixer))
    next(loader)
    unwatched(True)
    model = imgzoo.create_model("test_resnet")
    unwatched(False)
    model = model.to(cuda)
    unwatched(True)
    for batch in loader:
        model(batch.images).sum().backward()
