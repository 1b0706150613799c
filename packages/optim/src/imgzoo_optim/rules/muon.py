"""Muon (Jordan 2024; 2502.16982) and AdaMuon (2507.11005): momentum with its singular values brought near one."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from imgzoo.errors import UsageError
from imgzoo.options import is_of
from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer, low

from .moments import adaptive_step, average_, average_square_

Coefficients = tuple[tuple[float, float, float], ...]

POLAR = (  # 2505.16932, its first five steps
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
PRESETS: dict[str, Coefficients] = {
    "original": ((3.4445, -4.7750, 2.0315),),
    "quintic": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    "polar_express": POLAR,
    "polar_express_safer": tuple((a / 1.01, b / 1.01**3, c / 1.01**5) for a, b, c in POLAR),
}
RATES = {  # (rows, columns) -> factor of the learning rate
    "original": lambda rows, columns: max(1.0, rows / columns) ** 0.5,
    "match_rms_adamw": lambda rows, columns: 0.2 * max(rows, columns) ** 0.5,
    "rms_to_rms": lambda rows, columns: (rows / columns) ** 0.5,
    "rsqrt_in": lambda rows, columns: columns**-0.5,
    "none": lambda rows, columns: 1.0,
}
BATCH = {"cpu": 1 << 18}
"""Elements of equally shaped matrices that are orthogonalized together, by device type."""
BATCH_ELSEWHERE = 1 << 24
LEAST, LONGEST = 4, 128
"""A matrix has at least `LEAST` rows and columns and is at most `LONGEST` times as long as wide."""


def coefficients(given: str | tuple[Any, ...] | list[Any], steps: int) -> Coefficients:
    """The polynomial of each step: a preset's name, one triple, or a list of triples whose last one repeats."""
    if isinstance(given, str):
        if given not in PRESETS:
            raise UsageError(f"ns_coefficients must be one of {', '.join(PRESETS)} or triples, got '{given}'")
        rows: Any = PRESETS[given]
    else:
        rows = given if given and isinstance(given[0], tuple | list) else (given,)
        if not all(is_of(row, tuple[float, float, float]) for row in rows):
            raise UsageError(f"ns_coefficients are three numbers, or rows of three, not {given!r}")
    return tuple(rows[min(i, len(rows) - 1)] for i in range(steps))


def orthogonalize(x: Tensor, steps: Coefficients, eps: float = 1e-7, safety: float = 1.0) -> Tensor:
    """Newton-Schulz on matrices (B, M, N): singular values go near one, singular vectors stay.

    Works on the short side. Long float32 matrices iterate on their Gram matrix, which takes fewer products.
    """
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    size = (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) * safety).clamp_(min=eps)
    gram_form = x.dtype in (torch.float32, torch.float64) and x.shape[2] >= 3 * x.shape[1]
    x = _by_gram(x, size, steps) if gram_form else _directly(x / size, steps)
    return x.mT if tall else x


def _directly(x: Tensor, steps: Coefficients) -> Tensor:
    if len(x) == 1:  # the plain product is the better kernel
        (y,) = x
        del x  # names are given up as soon as they may be: these are the largest temporaries of a step
        for a, b, c in steps:
            gram = y @ y.mT
            gram = torch.addmm(gram, gram, gram, beta=b, alpha=c)
            y = torch.addmm(y, gram, y, beta=a)
        return y[None]
    for a, b, c in steps:
        gram = torch.bmm(x, x.mT)
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, gram, x, beta=a)
    return x


def _by_gram(x: Tensor, size: Tensor, steps: Coefficients) -> Tensor:
    """The same polynomial of `x / size`, accumulated over the Gram matrix: `x` is multiplied once, at the end."""
    gram = torch.bmm(x, x.mT).div_(size * size)
    product: Tensor | None = None
    for i, (a, b, c) in enumerate(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else torch.bmm(factor, product)
        if i + 1 < len(steps):
            gram = torch.bmm(torch.bmm(factor, gram), factor)
    return x / size if product is None else torch.bmm(product.div_(size), x)


def is_matrix(shape: torch.Size) -> bool:
    """Whether a parameter is a matrix, seen as (first axis, all others), that is worth orthogonalizing."""
    if len(shape) < 2 or shape[1] == 1:
        return False
    short, long = sorted((shape[0], shape.numel() // shape[0]))
    return short >= LEAST and long <= LONGEST * short


class Muon(Optimizer):
    """Matrices: `m = momentum * m + (1 - momentum) * g; p -= lr * scale * orthogonalize(m)`; the rest: AdamW.

    Groups with `use_fallback` get AdamW whatever their shape. `ns_dtype` is the precision of Newton-Schulz: bfloat16 on
    accelerators, at least float32 on CPU unless given, which is closer, and faster where the processor has no
    instructions for bfloat16. `scale_eps` makes `eps`, the least norm a matrix is divided by, proportional to the root
    of columns over rows.
    """

    slots = ("exp_avg", "exp_avg_sq")
    real_only = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = False,
        ns_steps: int = 5,
        ns_coefficients: str | tuple[Any, ...] | list[Any] = "quintic",
        eps: float = 1e-7,
        safety_factor: float = 1.0,
        adjust_lr_fn: Literal[*RATES] | None = "match_rms_adamw",  # type: ignore[valid-type]
        conv_mode: Literal["flatten", "batched"] = "flatten",
        normalize_spatial: bool = True,
        fallback_lr_scale: float = 1.0,
        adamw_lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        algo: Literal["muon", "adamuon"] = "muon",
        scale_eps: bool = False,
        ns_dtype: torch.dtype | None = None,
    ):
        if adamw_lr is not None:
            if not float(lr):
                raise UsageError("adamw_lr is kept as a factor of lr, which is 0; pass an lr above 0")
            fallback_lr_scale = adamw_lr / float(lr)
        ns_coefficients = coefficients(ns_coefficients, ns_steps)
        super().__init__(params, **{key: value for key, value in locals().items() if key not in _LOCAL})

    def create(self, state: dict[str, Any], param: Tensor, group: dict[str, Any]) -> None:
        if not self._orthogonal(param, group):
            super().create(state, param, group)
            return
        like = self.initial("", param, param)
        state["momentum_buffer"] = like
        if group["algo"] == "adamuon":
            state["exp_avg_sq"] = torch.zeros_like(like)

    @staticmethod
    def _orthogonal(param: Tensor, group: dict[str, Any]) -> bool:
        return not group.get("use_fallback") and is_matrix(param.shape)

    @staticmethod
    def _precision(group: dict[str, Any], param: Tensor) -> torch.dtype:
        """What Newton-Schulz computes in."""
        if group["ns_dtype"] is not None:
            return group["ns_dtype"]
        return torch.promote_types(param.dtype, torch.float32) if param.device.type == "cpu" else torch.bfloat16

    @classmethod
    def _together(cls, group: dict[str, Any], param: Tensor) -> int:
        """How many matrices like this are orthogonalized at once; one in bfloat16 on a CPU, slow at batches of it."""
        kind = param.device.type
        if kind == "cpu" and cls._precision(group, param) == torch.bfloat16:
            return 1
        return max(1, BATCH.get(kind, BATCH_ELSEWHERE) // param.numel())

    def update(self, group: dict[str, Any], params: list[Tensor], t: Any) -> None:
        alike: dict[torch.Size, list[Tensor]] = {}
        rest = []
        for param in params:
            if self._orthogonal(param, group):
                alike.setdefault(param.shape, []).append(param)
            else:
                rest.append(param)
        if rest:
            super().update({**group, "lr": self.lr(group) * group["fallback_lr_scale"]}, rest, t)
        for same in alike.values():
            size = self._together(group, same[0])
            for start in range(0, len(same), size):
                self._orthogonal_step(group, same[start : start + size], t)

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        """AdamW for what is no matrix, with Nesterov momentum where the matrices have it."""
        mean, square = block.state
        beta1, beta2 = group["betas"]
        average_(mean, block.grads, beta1)
        average_square_(square, block.grads, beta2)
        ahead = foreach.lerp(mean, block.grads, 1 - beta1) if group["nesterov"] else mean
        return adaptive_step(ahead, square, 1 - beta1**block.t, 1 - beta2**block.t, group["eps"])

    def _orthogonal_step(self, group: dict[str, Any], params: list[Tensor], t: Any) -> None:
        """Step equally shaped matrices."""
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        grads = [p.grad.to(b.dtype) for p, b in zip(params, buffers)]  # type: ignore[union-attr]
        average_(buffers, grads, group["momentum"])
        ahead = foreach.lerp(grads, buffers, group["momentum"]) if group["nesterov"] else buffers
        dtype = self._precision(group, params[0])
        shape = params[0].shape
        taps = shape[2:].numel() if group["conv_mode"] == "batched" else 1
        matrices = torch.stack(ahead) if len(ahead) > 1 else ahead[0][None]
        matrices = matrices.to(dtype).reshape(len(params), shape[0], -1)
        if taps > 1:
            matrices = matrices.view(len(params), shape[0], shape[1], taps).movedim(3, 1).flatten(0, 1)
        rows, columns = matrices.shape[1:]
        eps = group["eps"] * (columns / rows) ** 0.5 if group["scale_eps"] else group["eps"]
        steps = orthogonalize(matrices, group["ns_coefficients"], eps, group["safety_factor"])
        if taps > 1:
            steps = steps.view(len(params), taps, rows, columns).movedim(1, 3)
        steps = list(steps.to(buffers[0].dtype).reshape(len(params), *shape))
        scale = RATES[group["adjust_lr_fn"] or "none"](rows, columns)
        if taps > 1 and group["normalize_spatial"]:
            scale /= taps**0.5
        if group["algo"] == "adamuon":
            steps = self._adapt(group, params, steps, t)
            if group["adjust_lr_fn"] == "match_rms_adamw":
                scale = 0.2 / (taps**0.5 if taps > 1 and group["normalize_spatial"] else 1.0)
                sizes = foreach.norm(steps)
                foreach.clamp_min_(sizes, group["eps"])
                foreach.div_(steps, sizes)
                scale *= shape.numel() ** 0.5
        wide = [p.float() for p in params] if low(params[0].dtype) else params
        shrink = self.shrink(group)
        if isinstance(shrink, Tensor) or shrink != 1:
            foreach.mul_(wide, shrink)
        foreach.mul_(steps, self.lr(group) * scale)
        foreach.sub_(wide, steps)
        if wide is not params:
            foreach.copy_(params, wide)

    def _adapt(self, group: dict[str, Any], params: list[Tensor], steps: list[Tensor], t: Any) -> list[Tensor]:
        """AdaMuon: divide by the root of the second moment of the orthogonalized direction."""
        beta2 = group["betas"][1]
        square = [self.state[p]["exp_avg_sq"] for p in params]
        average_square_(square, steps, beta2)
        denominator = foreach.sqrt(square)
        foreach.add_(denominator, group["eps"])
        foreach.div_(denominator, (1 - beta2**t) ** 0.5)
        return list(foreach.div(steps, denominator))


_LOCAL = ("self", "params", "__class__", "adamw_lr")
