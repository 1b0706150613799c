"""What passes through a network, watched by hooks: signal propagation (arXiv:2101.08692, section 3)."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.errors import UsageError

Measure = Callable[[Tensor], Tensor]
"""Makes a number of what a module puts out."""


def rows_of(output: Tensor) -> Tensor:
    """A map (B, C, H, W), tokens (B, N, C) or vectors (B, C) -> the values of each channel, (C, values)."""
    return output.float().movedim(1 if output.ndim == 4 else -1, 0).flatten(1)


def squared_mean(output: Tensor) -> Tensor:
    """Square of each channel's mean, averaged over channels."""
    return rows_of(output).mean(1).square().mean()


def variance(output: Tensor) -> Tensor:
    """Variance of each channel, averaged over channels; of a single value 0."""
    rows = rows_of(output)
    return rows.var(1, correction=min(1, rows.shape[1] - 1)).mean()


MEASURES: dict[str, Measure] = {"squared_mean": squared_mean, "variance": variance}


class ActivationStats(AbstractContextManager["ActivationStats"]):
    """Numbers of what modules put out, of every forward pass while it is open.

        with ActivationStats(model, "layer*", "*.act3") as stats:
            model(images)
        stats.mean()  # {"layer1": {"squared_mean": 0.1, "variance": 1.2}, ...}

    Args:
        patterns: globs over module names; one that matches no module is a `UsageError`.
        measures: name -> function of an output, besides or instead of `MEASURES`.
    """

    def __init__(self, model: nn.Module, *patterns: str, measures: Mapping[str, Measure] = MEASURES):
        self.measures = dict(measures)
        self.found: dict[str, dict[str, list[float]]] = {}
        self._handles: list[Any] = []
        modules = {name: module for name, module in model.named_modules() if name}
        for pattern in patterns or ("*",):
            names = fnmatch.filter(modules, pattern)
            if not names:
                raise UsageError(f"'{pattern}' matches no module of {type(model).__name__}")
            self.found |= {name: {measure: [] for measure in self.measures} for name in names}
        self._modules = {name: module for name, module in modules.items() if name in self.found}

    def __enter__(self) -> ActivationStats:
        self._handles = [module.register_forward_hook(self._watch(name)) for name, module in self._modules.items()]
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()

    def _watch(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            output = output[0] if isinstance(output, (tuple, list)) else output
            with torch.no_grad():
                for measure, fn in self.measures.items():
                    self.found[name][measure].append(float(fn(output.detach())))

        return hook

    def mean(self) -> dict[str, dict[str, float]]:
        """Each number's mean over the passes, by module; modules that nothing passed are left out."""
        return {
            name: {measure: sum(values) / len(values) for measure, values in row.items()}
            for name, row in self.found.items()
            if all(row.values())
        }
