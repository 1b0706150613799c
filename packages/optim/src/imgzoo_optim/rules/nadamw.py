"""NAdamW: AdamW whose step looks one momentum update ahead (2306.07179, appendix)."""

from __future__ import annotations

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.kernel import Kernel

from .adamw import AdamW


class NAdamW(AdamW):
    """`p -= lr * (beta1 * m + (1 - beta1) * g) / (1 - beta1^t) / (sqrt(v_hat) + eps)`, decay apart."""

    kernel = Kernel(
        ("m", "v"),
        ("a1", "a2", "c1", "c2", "eps"),
        "m += a1 * (g - m); v += a2 * (g * g - v); u = (m + a1 * (g - m)) * c1 / (sqrtf(v) * c2 + eps);",
    )

    @staticmethod
    def ahead(mean: list[Tensor], grads: list[Tensor], beta: float) -> list[Tensor]:
        return foreach.lerp(mean, grads, 1 - beta)
