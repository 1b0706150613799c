"""An optimizer around another: shares its groups, state and hooks, so schedules and checkpoints see one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Wrapper(torch.optim.Optimizer):
    """Base of `Lookahead` and `SAM`: everything but `step` is the inner optimizer's."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer
        inner: Any = optimizer
        self._optimizer_step_pre_hooks = inner._optimizer_step_pre_hooks
        self._optimizer_step_post_hooks = inner._optimizer_step_post_hooks

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        return self.optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        return self.optimizer.defaults

    @property
    def second_order(self) -> bool:
        """Whether `backward` has to be called with `create_graph=True`."""
        return getattr(self.optimizer, "second_order", False)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self.optimizer.add_param_group(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {**self.optimizer.state_dict(), "wrapper": self.extra()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict({key: value for key, value in state_dict.items() if key != "wrapper"})
        self.set_extra(state_dict.get("wrapper", {}))

    def extra(self) -> dict[str, Any]:
        """What the wrapper itself remembers, beside tensors in `state`."""
        return {}

    def set_extra(self, extra: dict[str, Any]) -> None:
        """Restore what `extra` returned."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        return self.optimizer.step(closure)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.optimizer!r})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
