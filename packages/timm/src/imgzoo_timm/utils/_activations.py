"""Statistics of what modules put out."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo_train.techniques.activations import squared_mean, variance

Measure = Callable[[nn.Module, Any, Tensor], Any]


def avg_sq_ch_mean(model: nn.Module, input: Any, output: Tensor) -> float:
    """Square of each channel's mean, averaged over channels."""
    return float(squared_mean(output))


def avg_ch_var(model: nn.Module, input: Any, output: Tensor) -> float:
    """Variance of each channel, averaged over channels."""
    return float(variance(output))


avg_ch_var_residual = avg_ch_var


class ActivationStatsHook:
    """`stats[function's name]` has a number for each forward pass through a module that a glob names.

    Each of `hook_fn_locs` has the function in its place of `hook_fns`; `close()` ends it.
    """

    def __init__(self, model: nn.Module, hook_fn_locs: Sequence[str], hook_fns: Sequence[Measure]):
        if len(hook_fn_locs) != len(hook_fns):
            raise ValueError(f"{len(hook_fns)} hook_fns for {len(hook_fn_locs)} hook_fn_locs: each has one")
        self.model, self.hook_fn_locs, self.hook_fns = model, hook_fn_locs, hook_fns
        self.stats: dict[str, list[Any]] = {getattr(fn, "__name__", str(fn)): [] for fn in hook_fns}
        self.handles: list[Any] = []
        for place, fn in zip(hook_fn_locs, hook_fns):
            self.register_hook(place, fn)

    def register_hook(self, hook_fn_loc: str, hook_fn: Measure) -> None:
        names = fnmatch.filter((name for name, _ in self.model.named_modules()), hook_fn_loc)
        if not names:
            raise UsageError(f"{hook_fn_loc!r} matches no module of {type(self.model).__name__}")
        kept = self.stats.setdefault(getattr(hook_fn, "__name__", str(hook_fn)), [])

        def keep(module: nn.Module, input: Any, output: Any) -> None:
            with torch.no_grad():
                kept.append(hook_fn(module, input, output))

        self.handles += [self.model.get_submodule(name).register_forward_hook(keep) for name in names]

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def extract_spp_stats(model: nn.Module, hook_fn_locs: Sequence[str], hook_fns: Sequence[Measure],
                      input_shape: Sequence[int] = (8, 3, 224, 224)) -> dict[str, list[Any]]:  # fmt: skip
    """The statistics of one pass of noise, which tell how signals grow along a network (arXiv:2101.08692)."""
    hook = ActivationStatsHook(model, hook_fn_locs, hook_fns)
    try:
        with torch.no_grad():
            model(torch.normal(0.0, 1.0, tuple(input_shape)))
    finally:
        hook.close()
    return hook.stats
