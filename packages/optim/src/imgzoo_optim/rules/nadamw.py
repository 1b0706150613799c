"""NAdamW: AdamW whose step looks one momentum update ahead (2306.07179, appendix)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block
from imgzoo_optim.kernels import Kernel

from .adamw import AdamW
from .moments import adaptive_step, average_, average_square_


class NAdamW(AdamW):
    """`p -= lr * (beta1 * m + (1 - beta1) * g) / (1 - beta1^t) / (sqrt(v_hat) + eps)`, decay apart."""

    kernel = Kernel(
        ("m", "v"),
        ("a1", "a2", "c1", "c2", "eps"),
        "m += a1 * (g - m); v += a2 * (g * g - v); u = (m + a1 * (g - m)) * c1 / (sqrtf(v) * c2 + eps);",
    )

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, square = block.state
        beta1, beta2 = group["betas"]
        average_(mean, block.grads, beta1)
        average_square_(square, block.grads, beta2)
        ahead = foreach.lerp(mean, block.grads, 1 - beta1)
        return adaptive_step(ahead, square, 1 - beta1**block.t, 1 - beta2**block.t, group["eps"])
