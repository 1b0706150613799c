"""Attention that begins from one token: the class token asks (CaiT arXiv:2103.17239, CrossViT arXiv:2103.14899)."""

from torch import Tensor, nn

from .attention import Attending, head_width


class ClassAttention(Attending):
    """The first token asks all: (B, 1 + N, C) -> (B, 1, C)."""

    def __init__(self, dim: int, heads: int = 8, qkv_bias: bool = True, attn_drop: float = 0.0, proj_drop: float = 0.0):
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.k = nn.Linear(dim, dim, bias=qkv_bias)
        self.v = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x[:, :1]).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)
        k = self.k(x).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)
        v = self.v(x).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)
        return self.proj_drop(self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2)))
