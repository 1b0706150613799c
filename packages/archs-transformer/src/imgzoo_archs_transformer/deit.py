"""DeiT (arXiv:2012.12877): a ViT with a second class token that learns from a teacher; DeiT-III is rows only."""

from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.model import DistilledTokens
from imgzoo_layers.init import trunc_normal_

from .vision_transformer import VisionTransformer


class VisionTransformerDistilled(DistilledTokens, VisionTransformer):
    """Class and distillation tokens, each with a classifier; outside of distilled training the two are averaged."""

    parts = VisionTransformer.parts._replace(head=("head", "head_dist"))
    layer_groups = {
        "stem": r"^cls_token|pos_embed|patch_embed|dist_token",
        "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
    }

    def __init__(self, global_pool: str = "token", num_classes: int = 1000, **options: Any):
        super().__init__(global_pool=global_pool, num_classes=num_classes, **options)
        self.add_second_head(self.embed_dim, num_classes)
        if isinstance(self.head_dist, nn.Linear):
            trunc_normal_(self.head_dist.weight, std=0.02)
            nn.init.zeros_(self.head_dist.bias)

    def _num_prefix(self, class_token: bool, reg_tokens: int) -> int:
        if not class_token:
            raise UsageError("the distilled head reads the class and distillation tokens: leave class_token=False out")
        return 2 + reg_tokens

    cls_token: nn.Parameter

    def _add_tokens(self, dim: int) -> None:
        self.dist_token = nn.Parameter(torch.empty(1, 1, dim))
        trunc_normal_(self.dist_token, std=0.02)

    def prefix(self, batch: int) -> list[Tensor]:
        tokens = [self.cls_token.expand(batch, -1, -1), self.dist_token.expand(batch, -1, -1)]
        if self.reg_token is not None:
            tokens.append(self.reg_token.expand(batch, -1, -1))
        return tokens
