"""torch's optimizers without the import of torch's compiler, which costs a run its first seconds.

`torch.optim` decorates its methods so that the compiler leaves them alone, and imports the compiler to do so on their
first call. These are the same classes, `imgzoo_optim.eager.SGD` is a `torch.optim.SGD`, with the undecorated methods.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch


class Eager:
    """What `torch.optim.Optimizer` decorates, plain; to be inherited before it."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


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
