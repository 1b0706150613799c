"""AdaHessian (2006.00719): Adam over Hutchinson's estimate of the Hessian's diagonal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imgzoo.errors import UsageError
from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer, flatten

from .moments import average_, average_square_

SEED = 2147483647


class AdaHessian(Optimizer):
    """`p -= lr * m_hat / (h_hat^(power / 2) + eps)`, `h` averages squared diagonals; `backward(create_graph=True)`."""

    slots = ("exp_avg", "exp_hessian_diag_sq")
    second_order = True
    real_only = True
    carried = ("generator", "count")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        hessian_power: float = 1.0,
        update_each: int = 1,
        n_samples: int = 1,
        avg_conv_kernel: bool = False,
    ):
        super().__init__(params, **locals())
        self.generator = torch.Generator().manual_seed(SEED)
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "probes": {"count": self.count, "generator": self.generator.get_state()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "probes"})
        if "probes" in state_dict:
            self.count = state_dict["probes"]["count"]
            self.generator.set_state(state_dict["probes"]["generator"])

    def before(self) -> None:
        if self.count % self.defaults["update_each"] == 0:
            self._estimate()
        self.count += 1

    def _estimate(self) -> None:
        """Average `z * (H z)` over random signs `z`."""
        params = [p for p in flatten(self.param_groups) if p.grad is not None]
        if any(p.grad.grad_fn is None for p in params):  # type: ignore[union-attr]
            raise UsageError("AdaHessian needs loss.backward(create_graph=True)")
        samples = self.defaults["n_samples"]
        diagonals = [self.initial("hessian_diag", p, p) for p in params]
        for i in range(samples):
            signs = [torch.randint(0, 2, p.shape, generator=self.generator, device="cpu").to(p) * 2 - 1 for p in params]
            with torch.enable_grad():
                products = torch.autograd.grad(
                    [p.grad for p in params],  # type: ignore[arg-type]
                    params,
                    grad_outputs=signs,
                    retain_graph=i < samples - 1,
                )
            for diagonal, sign, product in zip(diagonals, signs, products):
                diagonal += sign * product / samples
        for param, diagonal in zip(params, diagonals):
            if self.defaults["avg_conv_kernel"] and param.ndim == 4:
                diagonal.copy_(diagonal.abs().mean((2, 3), keepdim=True).expand_as(diagonal))
            self.state[param]["hessian_diag"] = diagonal

    def update(self, group: dict[str, Any], params: list[Tensor], t: Any) -> None:
        states = [self.state[p] for p in params]
        if any("hessian_diag" not in state for state in states):
            raise UsageError("AdaHessian has no estimate for a parameter that joined between two: use update_each=1")
        squares, diagonals = ([state[key] for state in states] for key in ("exp_hessian_diag_sq", "hessian_diag"))
        average_square_(squares, [d.to(s.dtype) for d, s in zip(diagonals, squares)], group["betas"][1])
        super().update(group, params, t)

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, square = block.state
        beta1, beta2 = group["betas"]
        average_(mean, [grad.detach() for grad in block.grads], beta1)
        denominator = foreach.div(square, 1 - beta2**block.t)
        foreach.pow_(denominator, group["hessian_power"] / 2)
        foreach.add_(denominator, group["eps"])
        foreach.mul_(denominator, 1 - beta1**block.t)
        return foreach.div(mean, denominator)
