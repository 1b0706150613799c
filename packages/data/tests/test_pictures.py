"""Pictures for people: what the network is given is what is shown, and no picture is larger than it may be."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from imgzoo_data import Mixer, create_dataset, create_loader, create_transform
from imgzoo_data.pictures import data_uri, seen, thumbnail
from imgzoo_data.transforms.sequences import patchify, unpatchify


@pytest.mark.parametrize("options", [{}, {"mixer": Mixer(10, 0.5, 0.5)}], ids=["plain", "mixed"])
def test_what_is_shown_is_what_the_loader_gives(options):
    transform = create_transform(input_size=(3, 32, 32), training=True, erase=0.5)
    loader = create_loader(create_dataset("digits:", "train"), transform, 8, seed=3, **options)
    loader.seek(0, 5)
    rows = seen(loader, count=8, epochs=3)
    assert (loader.epoch, loader.step) == (0, 5) and all(len(views) == 3 for _, views in rows)
    loader.seek(0)
    batch = next(iter(loader))
    mean, std = (torch.tensor(each)[:, None, None] for each in (transform.config.mean, transform.config.std))
    given = ((batch.images * std + mean).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    assert [index for index, _ in rows] == batch.indices.tolist()
    assert all(np.array_equal(views[0], image) for (_, views), image in zip(rows, given))
    assert any(not np.array_equal(views[0], views[1]) for _, views in rows)


def test_patches_are_put_together_again():
    image = torch.arange(3 * 8 * 12).view(3, 8, 12)
    patches, places = patchify(image, 4)
    assert torch.equal(unpatchify(patches, torch.from_numpy(places), 3), image)
    transform = create_transform(input_size=(3, 32, 32), training=True, sequence=(8, 12))
    rows = seen(create_loader(create_dataset("digits:", "train"), transform, 4, seed=0), count=4, epochs=1)
    assert len(rows) == 4 and all(views[0].shape[0] == 3 and views[0].shape[1] % 8 == 0 for _, views in rows)


def test_a_stream_has_nothing_to_show():
    from imgzoo_data.sources.base import Sample, StreamSource

    class Stream(StreamSource):
        num_classes = 2

        def __len__(self):
            return 8

        def stream(self, seed, epoch, reader, readers, training):
            yield from (Sample(np.zeros((8, 8, 3), np.uint8), 0, str(index)) for index in range(reader, 8, readers))

    transform = create_transform(input_size=(3, 8, 8), training=True)
    assert seen(create_loader(Stream(), transform, 4)) == []


@pytest.mark.parametrize("most", [24 * 1024, 2000])
def test_a_picture_is_no_larger_than_it_may_be(most):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8))
    assert len(base64.b64decode(data_uri(noise, most).partition(",")[2])) <= most


@pytest.mark.parametrize("encoded", [False, True], ids=["array", "npy"])
@pytest.mark.parametrize("asked", [3, 5])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_an_array_of_any_channels_is_shown(channels, asked, encoded):
    array = np.zeros((40, 80, channels), np.uint8)
    file = io.BytesIO()
    np.save(file, array)

    class Arrays:
        range = None

        def __getitem__(self, index):
            from imgzoo_data.sources.base import Sample

            return Sample((file.getvalue() if encoded else array) if index else b"broken", 0, "a")

    image = thumbnail(Arrays(), 1, 20, asked)
    assert image is not None and image.size == (20, 10) and image.mode == "RGB"
    assert thumbnail(Arrays(), 0) is None
