"""Build a network without wasting time on initial values: none where weights follow, each once where none do.

A placeholder is ordinary memory that nobody has written to, so it costs address space and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

RANDOM = ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_",
          "xavier_normal_", "orthogonal_")  # fmt: skip
INITIALIZERS = (*RANDOM, "constant_", "ones_", "zeros_")
SMALL = 4096
"""Below so many elements a second initialization costs less than putting off the first."""
WITHOUT_VALUES = {Tensor.dim, Tensor.size, Tensor.numel, Tensor.is_contiguous, *(
    getattr(Tensor, name).__get__
    for name in ("shape", "ndim", "dtype", "device", "layout", "is_cpu", "is_meta", "requires_grad", "grad", "grad_fn"))
}  # fmt: skip
"""What asks a tensor for its form only."""


class _Later(TorchFunctionMode):
    """Initializers put off until the network stands; what is used before that is filled at that moment.

    `pending` maps a parameter's id to itself and to the last initializer it was given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pending: dict[int, tuple[Tensor, Callable[..., Any]]] = {}

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.pending and function not in WITHOUT_VALUES:
            for value in (*args, *kwargs.values()):
                for one in cast(Any, value) if isinstance(value, (list, tuple)) else (value,):
                    if id(one) in self.pending:
                        self.fill(id(one))
        return function(*args, **kwargs)

    def fill(self, key: int, generator: torch.Generator | None = None) -> None:
        """Run the initializer that a parameter waits for."""
        _, initialize = self.pending.pop(key)
        initialize(generator)

    def fill_all(self) -> None:
        """Fill what still waits, on torch's threads: each random parameter from a generator of its own."""
        seeds: list[int] = cast(Any, torch.randint(2**62, (len(self.pending),), device="cpu")).tolist()
        jobs = [(key, torch.Generator().manual_seed(seed)) for key, seed in zip(list(self.pending), seeds, strict=True)]
        jobs.sort(key=lambda job: -self.pending[job[0]][0].numel())
        inference = torch.is_inference_mode_enabled()  # a thread has modes of its own

        def fill(job: tuple[int, torch.Generator]) -> None:
            with torch.inference_mode(inference):
                self.fill(*job)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(fill, jobs))


class _Build(threading.local):
    """What this thread is building: how many parameters came so far, and which of them are to be real."""

    on = False
    count = 0
    real: Collection[int] = ()
    numbers: dict[int, int]  # id of a placeholder -> its number
    keep: list[Any]  # placeholders stay alive, so that their ids stay theirs
    later: _Later | None = None


_build = _Build()
_lock = threading.Lock()
_builders = 0
_originals: dict[str, Any] = {}


def _register_placeholder(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
    """`register_parameter` that remembers placeholders; buffers are as always, so derived tables are right."""
    if _build.on and param is not None:
        if _build.count not in _build.real:
            _build.numbers[id(param)] = _build.count
            _build.keep.append(param)
        _build.count += 1
    _originals["register_parameter"](self, name, param)


def _unless_placeholder(name: str, initialize: Callable[..., Any]) -> Callable[..., Any]:
    """An initializer that leaves placeholders alone, or puts itself off until the network stands."""

    @wraps(initialize)
    def wrapped(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if _build.on and id(tensor) in _build.numbers:
            return tensor
        if _build.later is None or "generator" in kwargs or not _can_wait(tensor):
            return initialize(tensor, *args, **kwargs)

        def fill(generator: torch.Generator | None) -> None:
            source = {"generator": generator} if generator is not None and name in RANDOM else {}
            initialize(tensor, *args, **kwargs, **source)

        _build.later.pending[id(tensor)] = (tensor, fill)
        return tensor

    return wrapped


def _can_wait(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) and tensor.numel() >= SMALL and tensor.is_cpu


@contextmanager
def _patched() -> Generator[None]:
    """While any thread builds a skeleton, torch's registration and initializers ask whether it is this thread."""
    global _builders
    with _lock:
        if _builders == 0:
            _originals["register_parameter"] = nn.Module.register_parameter
            nn.Module.register_parameter = _register_placeholder  # type: ignore[method-assign]
            for name in INITIALIZERS:
                _originals[name] = getattr(nn.init, name)
                setattr(nn.init, name, _unless_placeholder(name, _originals[name]))
        _builders += 1
    try:
        yield
    finally:
        with _lock:
            _builders -= 1
            if _builders == 0:
                nn.Module.register_parameter = _originals["register_parameter"]  # type: ignore[method-assign]
                for name in INITIALIZERS:
                    setattr(nn.init, name, _originals[name])


def build_skeleton(construct: Callable[[], Any], real: Collection[int] = ()) -> tuple[Any, dict[int, int]]:
    """The network `construct` makes with placeholder parameters and real buffers, and numbers by placeholder's id.

    Parameters whose number is in `real` are made and initialized as always.
    """
    state = torch.random.get_rng_state() if not real else None
    with _patched():
        _build.on, _build.count, _build.real, _build.numbers, _build.keep = True, 0, real, {}, []
        try:
            model = construct()
            numbers = _build.numbers
        finally:
            _build.on, _build.keep, _build.numbers = False, [], {}
    if state is not None:
        torch.random.set_rng_state(state)
    return model, numbers


def build_initialized(construct: Callable[[], Any]) -> Any:
    """The network `construct` makes, where a parameter that is initialized twice is filled once.

    Torch's layers fill their weights, and a family then fills them again. Here the last initializer of each parameter
    runs, when the network stands or when the constructor uses the parameter in any other way. Values depend on torch's
    seed alone, not on the number of threads.
    """
    if _build.later is not None:  # a network inside a network: the outer one fills both
        return construct()
    with _patched(), _Later() as later:
        _build.later = later
        try:
            model = construct()
        finally:
            _build.later = None
    later.fill_all()
    return model


def assign(model: Any, state: Mapping[str, Tensor]) -> None:
    """Put the tensors of `state` into the model as they are, without copying; names and shapes were checked before."""
    for prefix, module in model.named_modules():
        dot = f"{prefix}." if prefix else ""
        for name, param in module._parameters.items():
            value = state.get(dot + name)
            if param is not None and value is not None:
                module._parameters[name] = nn.Parameter(value, requires_grad=param.requires_grad)
        for name in module._buffers:
            value = state.get(dot + name)
            if value is not None and name not in module._non_persistent_buffers_set:
                module._buffers[name] = value
