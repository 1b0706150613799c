"""EVA and kin: options that cannot be are refused when the network is made."""

import pytest

import imgzoo
from imgzoo.errors import UsageError

TINY = dict(embed_dim=32, depth=2, num_heads=4, num_classes=5)
KEYED = dict(qkv_fused=True, key_bias=True)


@pytest.mark.parametrize(("options", "words"), [
    ({"qkv_fused": True, "num_kv_heads": [2, 2]}, "32 channels of each, not 32 of queries and 16 of keys"),
    ({**KEYED, "num_kv_heads": [2]}, "num_kv_heads has a number for each of 2 blocks, not 1"),
    ({**KEYED, "num_kv_heads": [2, 2, 2]}, "num_kv_heads has a number for each of 2 blocks, not 3"),
    ({**KEYED, "num_kv_heads": [3, 3]}, "4 heads of queries do not share 3 heads of keys evenly"),
    ({"embed_dim": 40}, "heads of a multiple of 4 channels, not of 10"),
    ({"mlp": "dense"}, "mlp is one of mlp, glu, swiglu, geglu, not 'dense'"),
])  # fmt: skip
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        imgzoo.create_model("eva02_base_patch14_224", **{**TINY, **options}, device="meta")
