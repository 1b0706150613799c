"""A head that pools first and then normalizes, over tokens or maps with channels last."""

from torch import Tensor, nn

from .head import Head
from .norm import LayerNorm, Norm
from .pool import GlobalPool


class TokenPool(GlobalPool):
    """As `GlobalPool`, over tokens: (B, N, C) -> (B, C)."""

    def __init__(self, kind: str = "avg"):
        super().__init__(kind, channels_last=True, widens=False)
        self.dims = (1,)


class PoolNormHead(Head):
    """Pool, norm, dropout, linear: (B, H, W, C), or (B, N, C) with `tokens`, -> (B, classes)."""

    def __init__(self, dim: int, num_classes: int, pool: str = "avg", drop_rate: float = 0.0, tokens: bool = False,
                 norm: Norm = LayerNorm):  # fmt: skip
        super().__init__()
        self.dim = dim
        self.global_pool = TokenPool(pool) if tokens else GlobalPool(pool, channels_last=True, widens=False)
        self.norm = norm(dim)
        self.drop = nn.Dropout(drop_rate)
        self.fc = self.create_classifier(num_classes)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.norm(self.global_pool(x)))
        return x if pre_logits else self.fc(x)
