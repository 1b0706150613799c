"""The head that pools before it normalizes."""

import pytest
import torch
from torch.nn import functional as F

from imgzoo_layers.pool_norm import PoolNormHead


@pytest.mark.parametrize("tokens", [False, True])
def test_the_pooled_vector_is_normalized_then_classified(tokens):
    head = PoolNormHead(8, 3, tokens=tokens)
    maps = torch.randn(2, 4, 5, 8)
    vector = F.layer_norm(maps.mean((1, 2)), (8,), eps=1e-6)
    x = maps.flatten(1, 2) if tokens else maps
    torch.testing.assert_close(head(x, pre_logits=True), vector)
    torch.testing.assert_close(head(x), head.fc(vector))


def test_every_position_is_classified_without_a_pool():
    assert PoolNormHead(8, 3, pool="")(torch.randn(2, 4, 5, 8)).shape == (2, 4, 5, 3)
    assert PoolNormHead(8, 3, pool="max", tokens=True)(torch.randn(2, 20, 8)).shape == (2, 3)


def test_a_pool_that_widens_is_refused():
    with pytest.raises(ValueError, match="catavgmax"):
        PoolNormHead(8, 3, pool="catavgmax")
