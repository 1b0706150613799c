"""Torch's operations on lists of tensors, under names of our own: `foreach.add_(xs, ys, alpha=2)`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

_torch: Any = torch

add = _torch._foreach_add
add_ = _torch._foreach_add_
addcmul = _torch._foreach_addcmul
addcmul_ = _torch._foreach_addcmul_
clamp_max_ = _torch._foreach_clamp_max_
clamp_min_ = _torch._foreach_clamp_min_
copy_ = _torch._foreach_copy_
div = _torch._foreach_div
div_ = _torch._foreach_div_
lerp = _torch._foreach_lerp
lerp_ = _torch._foreach_lerp_
maximum_ = _torch._foreach_maximum_
mul = _torch._foreach_mul
mul_ = _torch._foreach_mul_
neg = _torch._foreach_neg
norm = _torch._foreach_norm
pow = _torch._foreach_pow
pow_ = _torch._foreach_pow_
reciprocal_ = _torch._foreach_reciprocal_
sign = _torch._foreach_sign
sign_ = _torch._foreach_sign_
sqrt = _torch._foreach_sqrt
sqrt_ = _torch._foreach_sqrt_
sub = _torch._foreach_sub
sub_ = _torch._foreach_sub_


def pointers(columns: Sequence[Sequence[Tensor]]) -> Iterator[int]:
    """Addresses of parallel lists of tensors, what stands side by side in the lists beside each other."""
    return chain.from_iterable(zip(*(map(Tensor.data_ptr, column) for column in columns)))
