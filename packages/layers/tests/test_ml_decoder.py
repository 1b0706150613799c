"""The decoder of many labels."""

import pytest
import torch
from torch import nn

from imgzoo_layers.ml_decoder import MlDecoder

MAP = torch.randn(2, 12, 3, 2, generator=torch.Generator().manual_seed(0))


def test_classes_of_a_group_share_a_query():
    """What comes out is torch's decoder layer without its attention between queries, read by each group's weights."""
    torch.manual_seed(0)
    head = MlDecoder(12, 7, groups=3, hidden=16, heads=2, mlp=24).eval()
    full = nn.TransformerDecoderLayer(16, 2, 24, batch_first=True).eval()
    layer = head.decoder.layers[0]
    full.load_state_dict(layer.state_dict(), strict=False)
    for weight in (full.self_attn.out_proj.weight, full.self_attn.out_proj.bias):
        nn.init.zeros_(weight)
    tokens = head.embed_standart(MAP.flatten(2).transpose(1, 2)).relu()
    query = head.query_embed.weight.expand(2, 3, 16)
    found = full(2 * query, tokens)  # no attention leaves the query; the lean layer adds it to itself
    expected = torch.stack([found[:, i // 3] @ head.duplicate_pooling[i // 3, :, i % 3] for i in range(7)], 1)
    torch.testing.assert_close(head(MAP), expected + head.duplicate_pooling_bias)
    torch.testing.assert_close(head(MAP.flatten(2).transpose(1, 2)), head(MAP))


def test_queries_stay_as_they_are_drawn():
    head = MlDecoder(12, 4, hidden=16)
    head(MAP).sum().backward()
    assert head.query_embed.weight.grad is None and head.duplicate_pooling.grad is not None
    assert head.query_embed.num_embeddings == 4 and MlDecoder(12, 300, hidden=16).query_embed.num_embeddings == 100


@pytest.mark.parametrize("options", [{"num_classes": 0}, {"num_classes": 5, "groups": 0}])
def test_no_classes_and_no_groups_are_refused(options):
    with pytest.raises(ValueError, match="at least one class and one group"):
        MlDecoder(12, **options)
