"""What happens when a loss or a gradient is not finite: raise, skip the step, or go back to the last checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from imgzoo.errors import ImgzooError

from .state import State


class NonFiniteError(ImgzooError):
    """The loss or a gradient became NaN or infinite."""

    exit_code = 1


class Rollback(Exception):
    """Ask the run to load its last checkpoint and to leave out the update that broke."""


class Later:
    """A flag of a device that the host reads later, and then waits for nothing that was asked of the device since."""

    def __init__(self, flag: torch.Tensor) -> None:
        self.flag, self.event = flag, None
        if flag.is_cuda:
            self.flag = torch.empty(flag.shape, dtype=flag.dtype, device="cpu", pin_memory=True)
            self.flag.copy_(flag, non_blocking=True)
            self.event = torch.cuda.current_stream(flag.device).record_event()

    def __bool__(self) -> bool:
        if self.event is not None:
            self.event.synchronize()
        return bool(self.flag)


class Guard:
    """Decides whether an update may happen; `record` receives what a broken one looked like.

    The flag is looked at before the optimizer steps. On an accelerator this would wait for the device at every step,
    so the policy `raise` looks at the flag of the step before; `skip` and `rollback` pay for looking at once.
    """

    def __init__(
        self,
        policy: str = "raise",
        limit: int = 10,
        record: Callable[[dict[str, Any]], None] | None = None,
        lagging: bool | None = None,
    ) -> None:
        self.policy, self.limit, self.record, self.lagging = policy, limit, record, lagging
        self._buffers: list[torch.Tensor] = []
        self._kept: list[torch.Tensor] = []
        self._previous: Later | None = None

    def protect(self, state: State) -> None:
        """Remember the buffers that the forward pass changes, such as running statistics."""
        buffers = list(state.plain.buffers())
        if len(buffers) != len(self._buffers) or any(a is not b for a, b in zip(buffers, self._buffers)):
            self._buffers, self._kept = buffers, [buffer.clone() for buffer in buffers]
        elif buffers:
            torch._foreach_copy_(self._kept, self._buffers)  # type: ignore[attr-defined]

    def restore(self) -> None:
        """Put the buffers back as they were before the forward pass."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)  # type: ignore[attr-defined]

    def allows(self, state: State, loss: torch.Tensor, norm: torch.Tensor, group: list[Any], loss_fn: Any) -> bool:
        """Whether the update may happen; raises `NonFiniteError` or `Rollback` as the policy says. Ranks agree."""
        finite = torch.isfinite(loss)
        if state.precision.scaler is None:
            finite = finite & torch.isfinite(norm).to(finite.device)
        finite = state.world.reduce(finite.int(), "min")
        lagging = self.lagging
        if lagging is None:
            lagging = self.policy == "raise" and state.device.type != "cpu"
        before = self._previous
        if lagging:
            self._previous = Later(finite)
        if (before is None or bool(before)) if lagging else bool(finite):
            return True

        self.restore()
        state.bad_steps += 1
        cause = find_nonfinite(state, group, loss_fn)
        self.restore()
        self._report(state, group, cause)
        if self.policy == "raise" or state.bad_steps > self.limit:
            many = f" (bad step number {state.bad_steps})" if state.bad_steps > 1 else ""
            raise NonFiniteError(
                f"the loss or its gradient is not finite at update {state.step}{many} ({cause}); "
                "lower --lr, set --clip, or choose --nonfinite skip or rollback"
            )
        if self.policy == "rollback":
            raise Rollback(state.step)
        return False

    def _report(self, state: State, group: list[Any], cause: str) -> None:
        if self.record is None:
            return
        indices = [int(index) for batch in group for index in getattr(batch, "indices", [])]
        self.record({"step": state.step, "policy": self.policy, "cause": cause, "indices": indices})


@torch.no_grad()
def find_nonfinite(state: State, group: list[Any], loss_fn: Any) -> str:
    """Name the first thing that is not finite: the input, a parameter, a module's output, or a parameter's gradient."""
    for batch in group:
        if not _finite(batch.images):
            return "an input image"
    for name, parameter in state.plain.named_parameters():
        if not _finite(parameter):
            return f"parameter {name}"

    found: list[str] = []

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not _finite(output):
                found.append(f"output of {name or 'the model'}")

        return look

    handles = [module.register_forward_hook(hook(name)) for name, module in state.plain.named_modules()]
    try:
        for batch in group if state.world.size == 1 else ():
            with state.precision.forward(state.device):
                loss = loss_fn(state.plain, batch)
            if not _finite(loss) and not found:
                found.append("the loss")
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else _nonfinite_gradient(state, group, loss_fn)


def _nonfinite_gradient(state: State, group: list[Any], loss_fn: Any) -> str:
    """The gradient nearest to the loss that is not finite; clipping spreads it, so it is then taken anew."""

    def bad() -> list[str]:
        return [name for name, row in taken if not _finite(row.grad)]

    taken = [(name, row) for name, row in state.plain.named_parameters() if row.grad is not None]
    names = bad()
    if len(names) == len(taken) and state.world.size == 1:
        state.plain.zero_grad(set_to_none=True)
        with torch.enable_grad():
            for batch in group:
                with state.precision.forward(state.device):
                    loss = loss_fn(state.plain, batch)
                loss.backward()
        names = bad()
    return f"gradient of {names[-1]}" if names else "a gradient that was finite when it was taken again"


def _finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, (list, tuple)):
        return all(_finite(item) for item in value)
    return True
