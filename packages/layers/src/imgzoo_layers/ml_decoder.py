"""A classifier of many labels: a query for each group of classes asks all places (ML-Decoder, arXiv:2111.12933)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class QueryLayer(nn.Module):
    """Queries attend to tokens, then a wide layer, each on a residual, normalized: (B, Q, C), (B, N, C) -> (B, Q, C).

    A decoder layer of arXiv:1706.03762 without the attention between the queries.
    """

    def __init__(self, dim: int, heads: int, hidden: int, drop: float):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.multihead_attn = nn.MultiheadAttention(dim, heads, drop, batch_first=True)
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        query = self.norm1(query + self.drop(query))
        found = self.multihead_attn(query, tokens, tokens, need_weights=False)[0]
        query = self.norm2(query + self.drop(found))
        return self.norm3(query + self.drop(self.linear2(self.drop(F.relu(self.linear1(query))))))


class MlDecoder(nn.Module):
    """A map (B, dim, H, W) or tokens (B, N, dim) -> logits (B, classes).

    `groups` fixed random queries, at most one a class and 100 where none are said, share the classes among them. The
    keys are those of the published decoders.
    """

    query_embed: nn.Embedding

    def __init__(self, dim: int, num_classes: int, groups: int | None = None, hidden: int = 768, heads: int = 8,
                 mlp: int = 2048, drop: float = 0.1):  # fmt: skip
        super().__init__()
        if num_classes < 1 or (groups is not None and groups < 1):
            raise ValueError(f"a decoder needs at least one class and one group, got {num_classes} and {groups}")
        groups = min(num_classes, groups or 100)
        self.num_classes = num_classes
        self.embed_standart = nn.Linear(dim, hidden)
        self.decoder = nn.Module()
        self.decoder.layers = nn.ModuleList([QueryLayer(hidden, heads, mlp, drop)])
        self.query_embed = nn.Embedding(groups, hidden).requires_grad_(False)
        self.duplicate_pooling = nn.Parameter(torch.empty(groups, hidden, -(-num_classes // groups)))
        self.duplicate_pooling_bias = nn.Parameter(torch.zeros(num_classes))
        nn.init.xavier_normal_(self.duplicate_pooling)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.relu(self.embed_standart(x.flatten(2).transpose(1, 2) if x.ndim == 4 else x))
        query = self.query_embed.weight.expand(len(x), -1, -1)
        for layer in self.decoder.layers:  # type: ignore[union-attr]
            query = layer(query, tokens)
        logits = torch.einsum("bgc,gcd->bgd", query, self.duplicate_pooling).flatten(1)
        return logits[:, : self.num_classes] + self.duplicate_pooling_bias
