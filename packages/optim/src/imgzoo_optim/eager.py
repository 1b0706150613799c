"""torch's optimizers without the import of torch's compiler, which costs a run its first seconds.

`torch.optim` decorates its methods so that the compiler leaves them alone, and imports the compiler to do so on their
first call. These are the same classes, `imgzoo_optim.eager.SGD` is a `torch.optim.SGD`, with the undecorated methods.
"""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

import torch

_LOAD = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
SCALARS = ("step", "mu_product", "exp_avg_lr")
"""State of one number, in a precision of its own."""


class Eager:
    """What `torch.optim.Optimizer` decorates, plain; to be inherited before it.

    Copies and pickles keep `carried` attributes and step hooks that say `travels`, which torch's leave behind.
    """

    carried: ClassVar[tuple[str, ...]] = ()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, from parameters of whatever dtype and device."""
        _LOAD(self, state_dict)
        optimizer: Any = self
        order = [index for group in state_dict["param_groups"] for index in group["params"]]
        params = [(param, group) for group in optimizer.param_groups for param in group["params"]]
        for index, (param, group) in zip(order, params):
            state = optimizer.state[param] if index in state_dict["state"] else {}
            for key, saved in state_dict["state"].get(index, {}).items():
                dtype = None if key in SCALARS else self.state_dtype(key, param, group)
                state[key] = _restored(saved, state[key], dtype)

    def state_dtype(self, key: str, param: torch.Tensor, group: dict[str, Any]) -> torch.dtype | None:
        """The precision of a state tensor; None for the one it was saved in."""
        return param.dtype

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)

    def __getstate__(self) -> dict[str, Any]:
        hooks = self._optimizer_step_pre_hooks  # type: ignore[attr-defined]
        kept = OrderedDict((key, hook) for key, hook in hooks.items() if getattr(hook, "travels", False))
        own = {name: getattr(self, name) for name in self.carried}
        return {**super().__getstate__(), **own, "_optimizer_step_pre_hooks": kept}  # type: ignore[misc]


def _restored(saved: Any, loaded: Any, dtype: torch.dtype | None) -> Any:
    """A state value in `dtype`: as torch loaded it, where its rounding to the parameter's dtype lost nothing."""
    if isinstance(saved, list | tuple):
        return type(saved)(_restored(a, b, dtype) for a, b in zip(saved, loaded, strict=True))
    if not isinstance(saved, torch.Tensor):
        return loaded
    wanted = saved.dtype if dtype is None or not (saved.is_floating_point() or saved.is_complex()) else dtype
    return loaded if loaded.dtype == wanted else saved.to(device=loaded.device, dtype=wanted, copy=True)


def plain_step(step: Callable[..., Any]) -> Callable[..., Any]:
    """A torch optimizer's `step`, gradients recorded only where it is differentiable."""
    raw = inspect.unwrap(step)

    @functools.wraps(raw)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return raw(self, *args, **kwargs)

    return run


@functools.cache
def __getattr__(name: str) -> Any:
    base = getattr(torch.optim, name, None)
    if not (isinstance(base, type) and issubclass(base, torch.optim.Optimizer)):
        raise AttributeError(f"torch.optim has no optimizer {name}")
    return type(name, (Eager, base), {"__module__": __name__, "__doc__": base.__doc__, "step": plain_step(base.step)})
