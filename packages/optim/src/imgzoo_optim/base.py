"""The base of this package's optimizers: groups, state, closures, precision, and one lean path around one update rule.

A rule is a class with `slots` (state tensors shaped like the parameter) and `direction(block, group)`, which updates
the state of a block and returns the step to subtract. The base walks the parameters in blocks that stay in cache, so no
temporary grows with the model, and wraps the rule: maximize, L2 or decoupled or corrected weight decay, the cautious
mask (2411.16085), low-precision and complex parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from imgzoo.errors import CapabilityError
from imgzoo.options import Range, check_kinds
from imgzoo.specs import NOTHING

from . import foreach, kernels
from .eager import Eager
from .kernel import Kernel
from .options import check_values, plain

Scalar = Any
"""A number, or a 0-d tensor while compiling or where the learning rate is one on an accelerator."""

BLOCK = {"cpu": 1 << 18}
"""Elements of one block, by device type: on CPU a megabyte of float32, which keeps a rule's operands in cache."""
BLOCK_ELSEWHERE = 1 << 25
ROW = 1 << 14
"""Elements of the rows of a tensor that a rule takes as a whole: enough of them for every thread."""
PLAIN = (Tensor, torch.nn.Parameter)
"""What is no piece of a tensor over several ranks: asked first, for every tensor of every step."""
SCALED = Kernel((), (), "u = factor * g;")
"""A step of which each tensor has a factor of its own."""
SHRUNK = Kernel((), (), "p *= factor; u = g;")
"""A step after weight decay of which each tensor has a factor of its own."""


class Block:
    """Parallel lists of tensors or of their pieces: parameters, gradients, state, and which tensor each belongs to."""

    __slots__ = ("compiled", "grads", "owners", "params", "scales", "shrinks", "state", "steps", "t")

    def __init__(self, owners: list[int], columns: list[list[Tensor]], t: Scalar):
        self.owners, self.t = owners, t
        self.params, self.grads, *self.state = columns
        self.steps: list[Tensor] = []
        self.scales: Tensor | None = None
        """Factor of each tensor's step, where `finish` sets them."""
        self.shrinks: Tensor | None = None
        """Factor of each parameter before its step, where `finish` sets them."""
        self.compiled = False


Segment = list[tuple[list[int], list[list[Tensor]]]]


def split(columns: list[list[Tensor]], limit: int) -> Iterator[Segment]:
    """Cut parallel lists of tensors into segments of blocks with about `limit` elements each.

    A segment holds whole tensors: one block of small ones, or all the blocks of a large one, cut along its first axis.
    """
    owners: list[int] = []
    batch: list[list[Tensor]] = [[] for _ in columns]
    size = 0
    for i, first in enumerate(columns[0]):
        numel = first.numel()
        if numel > limit:
            axis = next(k for k, length in enumerate(first.shape) if length > 1)
            rows = -(-first.shape[axis] // -(-numel // limit))
            cut = [column[i].split(rows, axis) for column in columns]
            yield [([i], [[piece] for piece in pieces]) for pieces in zip(*cut)]
            continue
        if size + numel > limit and owners:
            yield [(owners, batch)]
            owners, batch, size = [], [[] for _ in columns], 0
        owners.append(i)
        size += numel
        for column, kept in zip(columns, batch):
            kept.append(column[i])
    if owners:
        yield [(owners, batch)]


def norms(blocks: list[Block], column: Callable[[Block], list[Tensor]]) -> Tensor:
    """Euclidean norm of each tensor of a segment (N,), from its pieces."""
    parts = [kernels.norms(column(block)) for block in blocks]
    return parts[0] if len(parts) == 1 else torch.linalg.vector_norm(torch.cat(parts)).view(1)


def scale_(tensors: list[Tensor], factors: Sequence[Tensor]) -> None:
    """Multiply each tensor by its own 0-d factor; one factor serves all pieces of one tensor."""
    if len(factors) == 1:
        foreach.mul_(tensors, factors[0])
    else:
        foreach.mul_(tensors, factors)


def subtract_(params: list[Tensor], steps: list[Tensor], rate: Scalar) -> None:
    """`params -= rate * steps`; destroys `steps` when the rate is a tensor."""
    if isinstance(rate, Tensor):
        foreach.mul_(steps, rate)
        foreach.sub_(params, steps)
    else:
        foreach.add_(params, steps, alpha=-rate)


def low(dtype: torch.dtype) -> bool:
    """Whether a dtype is too coarse to keep state or compute in."""
    return dtype in (torch.bfloat16, torch.float16)


def subtract_scaled_(params: list[Tensor], steps: list[Tensor], factors: Tensor) -> None:
    """`params -= factors * steps`, a factor for each tensor."""
    if not _launched(SCALED, params, steps, 1.0, factors):
        for param, step, factor in zip(params, steps, factors.unbind()):
            param.addcmul_(step, factor, value=-1)


def subtract_shrunk_(params: list[Tensor], steps: list[Tensor], rate: Scalar, factors: Tensor) -> None:
    """`params = factors * params - rate * steps`, a factor for each tensor."""
    if not _launched(SHRUNK, params, steps, rate, factors):
        scale_(params, factors.unbind())
        subtract_(params, steps, rate)


def _launched(kernel: Kernel, params: list[Tensor], steps: list[Tensor], rate: Scalar, factors: Tensor) -> bool:
    """Apply steps in one launch on a CUDA device; whether it was done. On a CPU torch's operations are as fast."""
    if not params[0].is_cuda or torch.compiler.is_compiling():
        return False
    columns = [params, steps]
    run = kernels.loop(kernel, True, columns)
    if run is not None:
        run(columns, (1.0, 0.0, 1.0, rate, 0.0), factors)
    return run is not None


class Optimizer(Eager, torch.optim.Optimizer):
    """Base of the rules. Subclasses set `slots` and write `direction`; see the module's docstring."""

    slots: ClassVar[tuple[str, ...]] = ()
    whole: ClassVar[bool] = False
    """The step of a tensor depends on all of it (norms): `finish` then sees all its blocks at once."""
    kernel: ClassVar[Kernel | None] = None
    """The same arithmetic as `direction`, for the compiled loops."""
    _room: Tensor | None = None
    _used = _need = 0
    ranges: ClassVar[Mapping[str, Range]] = NOTHING
    """Where options may lie, if elsewhere than `options.RANGES` says."""
    real_only: ClassVar[bool] = False
    """The rule has no meaning for complex parameters."""

    def __init__(self, params: Any, /, **defaults: Any):
        """Rules pass their `locals()` as `defaults`."""
        defaults = {key: plain(value) for key, value in defaults.items() if key not in ("self", "params", "__class__")}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if isinstance(param_group, dict):
            param_group |= {key: plain(value) for key, value in param_group.items() if key != "params"}
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        options = {key: value for key, value in group.items() if key != "params"}
        check_kinds(type(self).__name__, type(self), options)
        check_values(type(self).__name__, options, self.ranges)
        if group.get("corrected_weight_decay"):
            group.setdefault("max_lr", float(group["lr"]))
        if self.real_only and any(p.is_complex() for p in group["params"]):
            raise CapabilityError(f"{type(self).__name__} takes no complex parameters; use sgd or adamw")
        elementwise = type(self).update is Optimizer.update and not self.sees_whole(group)
        if not elementwise and any(_local(p) is not p for p in group["params"]):
            raise CapabilityError(
                f"{type(self).__name__} looks at whole tensors, which FSDP2 cuts in pieces; use zero1, ddp or adamw"
            )

    # what a rule writes

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        """Update the state of a block and return what to subtract, times the learning rate, from its parameters."""
        raise NotImplementedError

    def sees_whole(self, group: dict[str, Any]) -> bool:
        """Whether `finish` has to see all the blocks of a tensor before any step is applied."""
        return self.whole or bool(group.get("caution"))

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        """The state tensors that parameters of this group have."""
        return self.slots

    def initial(self, slot: str, param: Tensor, grad: Tensor) -> Tensor:
        """First value of a state tensor."""
        return torch.zeros_like(param, dtype=torch.float32 if low(param.dtype) else None)

    def prepare(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], t: Scalar) -> None:
        """Called before the blocks of a batch of parameters that are at the same step."""

    def finish(self, blocks: list[Block], group: dict[str, Any]) -> None:
        """Change `block.steps` of all the blocks of a segment before they are applied; `whole` and cautious rules."""
        if group.get("caution"):
            self.caution(blocks)

    def decay(self, group: dict[str, Any]) -> str:
        """How weight decay acts: it may `shrink` the parameter, join the `gradient`, or be the rule's `own`."""
        return "shrink" if group.get("decoupled_decay", True) else "gradient"

    def rate(self, group: dict[str, Any]) -> Scalar:
        """What `direction`'s result is multiplied by."""
        return self.lr(group)

    # the path around it

    @staticmethod
    def lr(group: dict[str, Any]) -> Scalar:
        """The learning rate: a number unless it is a tensor that reading would cost a synchronization."""
        lr = group["lr"]
        held = isinstance(lr, Tensor) and not torch.compiler.is_compiling() and lr.device.type == "cpu"
        return lr.item() if held else lr

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Make one step; `closure`, if given, computes the gradients and its result is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.before()
        for group in self.param_groups:
            lr = self.lr(group)
            if group.get("corrected_weight_decay") and not isinstance(lr, Tensor):
                group["max_lr"] = max(group["max_lr"], lr)
            for params, t in self._batches(group):
                self.update(group, params, t)
        return loss

    def before(self) -> None:
        """Called once a step, before the groups: for what spans them."""

    def _batches(self, group: dict[str, Any]) -> Iterator[tuple[list[Tensor], Scalar]]:
        """Parameters with gradients, together where device, dtype and step number agree; counts the step."""
        together: dict[Any, list[Tensor]] = {}
        compiling = torch.compiler.is_compiling()
        live = [param for param in group["params"] if param.grad is not None and param.numel()]
        steps = []
        for param in live:
            if param.grad.is_sparse:
                raise CapabilityError(f"{type(self).__name__} takes no sparse gradients; use sgd or adagrad")
            state = self.state[param]
            if "step" not in state:
                state["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
                self.create(state, param, group)
            steps.append(state["step"])
        if steps:
            foreach.add_(steps, 1)
        for param, step in zip(live, steps if compiling else map(Tensor.item, steps)):
            t = len(together) if compiling else int(step)
            together.setdefault((param.device, param.dtype, t), []).append(param)
        for (_, _, t), params in together.items():
            yield params, self.state[params[0]]["step"] if compiling else t

    def create(self, state: dict[str, Any], param: Tensor, group: dict[str, Any]) -> None:
        """Make the state tensors of one parameter."""
        real, grad = _real(param), _real(param.grad)
        for slot in self.slots_of(group):
            state[slot] = self.initial(slot, real, grad)

    def update(self, group: dict[str, Any], params: list[Tensor], t: Scalar) -> None:
        """One step of parameters that share device, dtype and step number."""
        real, grads = [_real(_local(p)) for p in params], [_real(_local(p.grad)) for p in params]
        self.prepare(group, params, grads, t)
        states = [self.state[p] for p in params]
        columns = [real, grads, *([_local(state[slot]) for state in states] for slot in self.slots_of(group))]
        if self._compiled(group, columns, t) or self._in_two_passes(group, columns, t):
            return
        limit = sum(p.numel() for p in real) if torch.compiler.is_compiling() else self.limit(params[0])
        whole = self.sees_whole(group)
        self._need = max(limit, *(p.numel() for p in real)) if whole else 0
        for segment in split(columns, limit):
            blocks: list[Block] = []
            self._used = 0  # of the workspace
            for owners, pieces in segment:
                target = pieces[0]
                if low(target[0].dtype):
                    pieces = [[x.float() for x in pieces[0]], [x.float() for x in pieces[1]], *pieces[2:]]
                block = Block(owners, pieces, t)
                self._compute(block, group)
                if whole:
                    blocks.append(block)
                else:
                    self._apply(block, target, group)
            if not whole:
                continue
            self.finish(blocks, group)
            for block, (_, pieces) in zip(blocks, segment):
                self._apply(block, pieces[0], group)

    def constants(self, group: dict[str, Any], t: int) -> tuple[Scalar, ...]:
        """Values of `kernel.constants`."""
        return ()

    def factors(self, group: dict[str, Any]) -> Tensor | None:
        """One number for each tensor of the batch, which the kernel sees as `factor`."""
        return None

    def _constants(self, group: dict[str, Any], t: int) -> list[Scalar]:
        l2 = group["weight_decay"] if self.decay(group) == "gradient" else 0.0
        sign, last = -1.0 if group.get("maximize") else 1.0, float(self.decays_last(group))
        return [sign, l2, self.shrink(group), self.rate(group), last, *self.constants(group, t)]

    def _kernel_for(self, group: dict[str, Any], columns: list[list[Tensor]]) -> Kernel | None:
        """The rule's kernel, where it has all the state there is, and constants that are numbers."""
        kernel = self.kernel
        if kernel is None or len(kernel.state) != len(columns) - 2 or torch.compiler.is_compiling():
            return None
        return None if isinstance(self.lr(group), Tensor) else kernel

    def _compiled(self, group: dict[str, Any], columns: list[list[Tensor]], t: Scalar) -> bool:
        """Make the step with the rule's compiled loop where that can be had; whether it was made."""
        kernel = None if self.sees_whole(group) else self._kernel_for(group, columns)
        run = kernel and kernels.loop(kernel, True, columns)
        if run is None:
            return False
        run(columns, self._constants(group, t), self.factors(group))
        return True

    def _in_two_passes(self, group: dict[str, Any], columns: list[list[Tensor]], t: Scalar) -> bool:
        """Make the step of a `whole` rule with its compiled loops where they can be had; whether it was made."""
        kernel = self._kernel_for(group, columns) if self.whole and not group.get("caution") else None
        if kernel is None or columns[0][0].device.type != "cpu":
            return False
        functions = kernels.two_passes(kernel) if kernels.fits(columns) else None
        if functions is None:
            return False
        lengths = [max(1, self.row(p)) for p in columns[0]]
        weigh = functools.partial(self.weigh, group, columns[0])
        kernels.run_rows(functions, columns, lengths, self._constants(group, t), weigh)
        return True

    def row(self, param: Tensor) -> int:
        """Elements of the rows over which the sums of `weigh` go, for a kernel in two passes."""
        return ROW

    def weigh(self, group: dict[str, Any], params: list[Tensor], sums: list[Tensor]) -> Tensor:
        """What becomes of each row of all parameters (rows, 3), from the `sums` of each (rows, 5) in float64.

        The sums over a row are those of p g, p p, g g, p u and u u. The answer for one is three numbers a, s, r for
        `a * p - r * (u - s * p)`. The same as `finish`, which has the steps themselves.
        """
        raise NotImplementedError

    @staticmethod
    def limit(param: Tensor) -> int:
        """Elements of one block on this device."""
        return BLOCK.get(param.device.type, BLOCK_ELSEWHERE)

    def _compute(self, block: Block, group: dict[str, Any]) -> None:
        if group.get("maximize"):
            block.grads = foreach.neg(block.grads)
        if group["weight_decay"] and self.decay(group) == "gradient":
            block.grads = foreach.add(block.grads, block.params, alpha=group["weight_decay"])
        whole = self.sees_whole(group)
        block.steps = (self._kernel_direction(block, group) if whole else []) or self.direction(block, group)

    def _kernel_direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        """The steps of a block of a `whole` rule, from its compiled loop; empty where that cannot be had."""
        columns = [block.params, block.grads, *block.state]
        kernel = self._kernel_for(group, columns)
        if kernel is None or group.get("maximize") or self.factors(group) is not None:
            return []
        run = kernels.loop(kernel, False, columns)
        if run is None:
            return []
        steps = self._workspace(block)
        constants = [1.0, 0.0, 1.0, 1.0, 0.0, *self.constants(group, block.t)]
        run([*columns, steps], constants, None)
        block.compiled = True
        return steps

    def _workspace(self, block: Block) -> list[Tensor]:
        """Room for the steps of a block, used again for every segment: fresh pages cost more than the arithmetic."""
        device = block.params[0].device
        if self._room is None or self._room.numel() < self._need or self._room.device != device:
            self._room = torch.empty(self._need, device=device)
        rooms = []
        for param in block.params:
            rooms.append(torch.as_strided(self._room, param.size(), param.stride(), self._used))
            self._used += param.numel()
        return rooms

    def shrink(self, group: dict[str, Any]) -> Scalar:
        """The factor by which decoupled weight decay multiplies the parameter; 1 without."""
        decay = group["weight_decay"]
        if not decay or self.decay(group) != "shrink":
            return 1.0
        lr = self.lr(group)
        return 1 - (lr * self.corrected(group) if group.get("corrected_weight_decay") else lr) * decay

    def corrected(self, group: dict[str, Any]) -> Scalar:
        """The learning rate as a share of the largest one so far, by which corrected weight decay shrinks less."""
        return self.lr(group) / group["max_lr"] if group["max_lr"] else 1.0

    def decays_last(self, group: dict[str, Any]) -> bool:
        """Whether decoupled weight decay comes after the step rather than before it."""
        return False

    def _apply(self, block: Block, target: list[Tensor], group: dict[str, Any]) -> None:
        shrink, last = self.shrink(group), self.decays_last(group)
        shrinks = isinstance(shrink, Tensor) or shrink != 1
        if shrinks and not last:
            foreach.mul_(block.params, shrink)
        if block.shrinks is not None:
            subtract_shrunk_(block.params, block.steps, self.rate(group), block.shrinks)
        elif block.scales is not None:
            subtract_scaled_(block.params, block.steps, block.scales * self.rate(group))
        else:
            subtract_(block.params, block.steps, self.rate(group))
        if shrinks and last:
            foreach.mul_(block.params, shrink)
        if block.params is not target:
            foreach.copy_(target, block.params)

    @staticmethod
    def caution(blocks: list[Block]) -> None:
        """Drop the elements of `steps` that go against the gradient and scale up the rest (2411.16085)."""
        masks = [[(u * g > 0).to(u.dtype) for u, g in zip(block.steps, block.grads)] for block in blocks]
        if len(blocks) == 1:
            shares = [mask.mean().clamp_(min=1e-3) for mask in masks[0]]
        else:
            count = sum(mask.numel() for (mask,) in masks)
            shares = [torch.stack([mask.sum() for (mask,) in masks]).sum().div_(count).clamp_(min=1e-3)]
        for block, mask in zip(blocks, masks):
            foreach.mul_(block.steps, mask)
            scale_(block.steps, [share.reciprocal() for share in shares])

    def state_dtype(self, key: str, param: Tensor, group: dict[str, Any]) -> torch.dtype | None:
        return torch.float32 if low(param.dtype) else _real(param).dtype


def _local(x: Any) -> Tensor:
    """This rank's piece of a tensor that FSDP2 shards; elementwise rules need no more."""
    return x if type(x) in PLAIN or not hasattr(x, "to_local") else x.to_local()


def _real(x: Any) -> Tensor:
    """A complex tensor as pairs of reals."""
    return torch.view_as_real(x) if x.is_complex() else x


def flatten(parameters: Iterable[dict[str, Any]]) -> list[Tensor]:
    """Every parameter of the groups."""
    return [param for group in parameters for param in group["params"]]
