"""Images as records of patches: one type, from what the field passes around."""

import pickle

import pytest
import torch

from imgzoo.errors import UsageError
from imgzoo.model import Patches

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
