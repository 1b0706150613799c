"""Images as records of patches: one type, from what the field passes around."""

import pickle
import re

import pytest
import torch

from imgzoo.errors import UsageError
from imgzoo.model import Patches
from imgzoo.model.tokens import _whole

PARTS = torch.zeros(2, 5, 12), torch.zeros(2, 5, 2), torch.ones(2, 5, dtype=torch.bool)


def test_a_record_comes_from_a_dict_a_tuple_or_itself():
    record = Patches.of(dict(zip(("patches", "patch_coord", "patch_valid"), PARTS)))
    for other in (Patches.of(PARTS), Patches.of(record), pickle.loads(pickle.dumps(record))):
        assert all(torch.equal(a, b) for a, b in zip(other, record, strict=True))
    patches, _, valid = record
    assert patches is PARTS[0] and valid is record.valid


@pytest.mark.parametrize("record, word", [
    ({"patches": PARTS[0]}, "patch_coord"), (PARTS[0], "three"), (PARTS[:2], "three"),
    ((PARTS[0], PARTS[1][:, :4], PARTS[2]), "agree"), ((PARTS[0], PARTS[1][..., :1], PARTS[2]), "agree"),
])  # fmt: skip
def test_what_is_no_record_is_one_sentence(record, word):
    with pytest.raises(UsageError, match=word):
        Patches.of(record)


def test_patches_move_and_only_pixels_change_their_type():
    record = Patches(*PARTS).to(torch.float64).to("meta")
    assert record.patches.dtype == torch.float64 and record.valid.dtype == torch.bool
    assert {part.device.type for part in record} == {"meta"}


def cut(images, side, length):
    """Images (C, H, W) as a batch of patches in random order, filled up to `length`."""
    rows = [torch.full((len(images), length, side * side * 3), 9.0), torch.full((len(images), length, 2), 77)]
    valid = torch.zeros(len(images), length, dtype=torch.bool)
    for i, x in enumerate(images):
        tiles = x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).permute(1, 3, 2, 4, 0)
        places = torch.stack(torch.meshgrid(*map(torch.arange, tiles.shape[:2]), indexing="ij"), -1).flatten(0, 1)
        order = torch.randperm(len(places))
        for part, values in zip(rows, (tiles.flatten(2).flatten(0, 1), places), strict=True):
            part[i, : len(order)] = values[order].to(part.dtype)
        valid[i, : len(order)] = True
    return Patches(*rows, valid)


def test_images_come_back_shape_by_shape():
    images = [torch.randn(3, h, w) for h, w in ((8, 12), (4, 4), (8, 12), (12, 8))]
    record = cut(images, 4, 7)
    seen = {}
    for places, group in record.images(3):
        seen |= dict(zip(places.tolist(), group, strict=True))
    assert all(torch.equal(seen[i], image) for i, image in enumerate(images))
    for bad, word in ((record._replace(valid=record.valid & (torch.arange(7) != 0)), "hole"),
                      (record._replace(patches=record.patches[..., :40]), "no squares")):  # fmt: skip
        with pytest.raises(UsageError, match=word):
            list(bad.images(3))


@pytest.mark.parametrize(
    "size, said",
    [(50, r"\(48, 48\) and \(64, 64\) do"), (7, r"\(16, 16\) does"), ((16, 50), r"\(16, 48\) and \(16, 64\) do")],
)
def test_sizes_that_patches_divide_are_each_named_once(size, said):
    assert re.fullmatch(said, _whole((size, size) if isinstance(size, int) else size, (16, 16)))
