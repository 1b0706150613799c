"""EVA and kin: options that cannot be are refused when the network is made."""

import pytest

import imgzoo
from imgzoo.errors import UsageError

TINY = dict(embed_dim=32, depth=2, num_heads=4, num_classes=5)


@pytest.mark.parametrize(("options", "words"), [
    ({"attn": "qv_bias", "num_kv_heads": [2, 2]}, "32 channels of each, not 32 of queries and 16 of keys"),
    ({"attn": "fused", "num_kv_heads": [2]}, "num_kv_heads has a number for each of 2 blocks, not 1"),
    ({"attn": "fused", "num_kv_heads": [2, 2, 2]}, "num_kv_heads has a number for each of 2 blocks, not 3"),
    ({"attn": "fused", "num_kv_heads": [3, 3]}, "4 heads of queries do not share 3 heads of keys evenly"),
    ({"embed_dim": 40}, "heads of a multiple of 4 channels, not of 10"),
    ({"attn": "dense"}, "attn has no 'dense'; see imgzoo info eva02_base_patch14_224 --options"),
])  # fmt: skip
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        imgzoo.create_model("eva02_base_patch14_224", **{**TINY, **options}, device="meta")
