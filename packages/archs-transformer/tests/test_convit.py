"""ConViT's class token joins behind the local blocks."""

import pytest
import torch

import imgzoo
from imgzoo.errors import UsageError

SMALL = dict(embed_dim=16, num_heads=4, img_size=32)


@pytest.mark.parametrize("local", [3, 4])
def test_blocks_that_show_no_patches_are_refused(local):
    with pytest.raises(UsageError, match="local_up_to_layer must be below depth=3"):
        imgzoo.create_model("convit_tiny", depth=3, local_up_to_layer=local, device="meta", **SMALL)


def test_the_last_block_is_enough():
    model = imgzoo.create_model("convit_tiny", depth=3, local_up_to_layer=2, **SMALL).eval()
    first, second = model(torch.randn(2, 3, 32, 32))
    assert not torch.equal(first, second)
