"""Walking over the modules of a network, groups of its layers, and checkpointed sequences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.utils import checkpoint as native

from imgzoo.groups import layer_ids
from imgzoo.loading.adapt import adapt_input
from imgzoo_timm.layers._config import use_reentrant_ckpt

__all__ = ["adapt_input_conv", "checkpoint", "checkpoint_seq", "flatten_modules", "group_modules", "group_parameters",
           "group_with_matcher", "model_parameters", "named_apply", "named_modules", "named_modules_with_params",
           "reparameterize_model"]  # fmt: skip

MATCH_PREV_GROUP = (99999,)


def model_parameters(model: nn.Module, exclude_head: bool = False) -> Iterable[nn.Parameter]:
    """Parameters, without the last two (the classifier's) if so asked."""
    return list(model.parameters())[:-2] if exclude_head else model.parameters()


def named_apply(fn: Callable[..., Any], module: nn.Module, name: str = "", depth_first: bool = True,
                include_root: bool = False) -> nn.Module:  # fmt: skip
    """Call `fn(module=, name=)` for every module below, children before their parents unless told."""
    if not depth_first and include_root:
        fn(module=module, name=name)
    for key, child in module.named_children():
        named_apply(fn, child, f"{name}.{key}" if name else key, depth_first, include_root=True)
    if depth_first and include_root:
        fn(module=module, name=name)
    return module


def named_modules(module: nn.Module, name: str = "", depth_first: bool = True,
                  include_root: bool = False) -> Iterator[tuple[str, nn.Module]]:  # fmt: skip
    if not depth_first and include_root:
        yield name, module
    for key, child in module.named_children():
        yield from named_modules(child, f"{name}.{key}" if name else key, depth_first, include_root=True)
    if depth_first and include_root:
        yield name, module


def named_modules_with_params(module: nn.Module, name: str = "", depth_first: bool = True,
                              include_root: bool = False) -> Iterator[tuple[str, nn.Module]]:  # fmt: skip
    for path, each in named_modules(module, name, depth_first, include_root):
        if each._parameters:
            yield path, each


def group_with_matcher(named_objects: Iterable[tuple[str, Any]], group_matcher: Any, return_values: bool = False,
                       reverse: bool = False) -> Any:  # fmt: skip
    """Layers by number -> names (or the objects); with `reverse` names -> number."""
    named = list(named_objects)
    ids = layer_ids([name for name, _ in named], group_matcher)
    if reverse:
        return dict(ids)
    values, groups = dict(named), defaultdict(list)
    for name, number in ids.items():
        groups[number].append(values[name] if return_values else name)
    return dict(sorted(groups.items()))


def group_parameters(module: nn.Module, group_matcher: Any, return_values: bool = False, reverse: bool = False) -> Any:
    return group_with_matcher(module.named_parameters(), group_matcher, return_values, reverse)


def group_modules(module: nn.Module, group_matcher: Any, return_values: bool = False, reverse: bool = False) -> Any:
    return group_with_matcher(named_modules_with_params(module), group_matcher, return_values, reverse)


def flatten_modules(named_modules: Iterable[tuple[str, nn.Module]], depth: int = 1, prefix: Any = "",
                    module_types: Any = "sequential") -> Iterator[tuple[str, nn.Module]]:  # fmt: skip
    """Modules with those inside containers in their place, down to `depth`."""
    kinds: Any = module_types
    if isinstance(kinds, str):
        kinds = (nn.Sequential, nn.ModuleList, nn.ModuleDict) if kinds == "container" else (nn.Sequential,)
    prefix = (prefix,) if isinstance(prefix, str) and prefix else prefix or ()
    for name, module in named_modules:
        if depth and isinstance(module, kinds):
            yield from flatten_modules(module.named_children(), depth - 1, (*prefix, name), kinds)
        else:
            yield ".".join((*prefix, name)), module


def checkpoint(function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None, **kwargs: Any) -> Any:
    reentrant = use_reentrant_ckpt() if use_reentrant is None else use_reentrant
    return native.checkpoint(function, *args, use_reentrant=reentrant, **kwargs)


def checkpoint_seq(functions: Any, x: Any, every: int = 1, flatten: bool = False, skip_last: bool = False,
                   use_reentrant: bool | None = None) -> Any:  # fmt: skip
    """Run functions in sequence, `every` so many of them repeated together in the backward pass."""
    if isinstance(functions, nn.Sequential):
        functions = functions.children()
    steps = list(chain.from_iterable(functions) if flatten else functions)
    cut = len(steps) - 1 if skip_last else len(steps)

    def run(part: list[Any]) -> Callable[[Any], Any]:
        def forward(inner: Any) -> Any:
            for step in part:
                inner = step(inner)
            return inner

        return forward

    for start in range(0, cut, every):
        x = checkpoint(run(steps[start : min(start + every, cut)]), x, use_reentrant=use_reentrant)
    return run(steps[cut:])(x)


def adapt_input_conv(in_chans: int, conv_weight: Tensor, base_chans: int = 3) -> Tensor:
    """A convolution's kernels (O, base, k, k) for images of `in_chans` channels.

    Kernels (O, cells * base, k, k) of an image whose cells were moved into channels are summed up for one channel.
    """
    if in_chans < 1 or base_chans < 1:
        raise ValueError(f"an image has at least one channel: in_chans is {in_chans}, base_chans {base_chans}")
    if in_chans == base_chans:
        return conv_weight
    cells, rest = divmod(conv_weight.shape[1], base_chans)
    if rest or (cells > 1 and in_chans > 1):
        raise NotImplementedError(f"kernels of {conv_weight.shape[1]} channels are not of images of {base_chans}")
    return adapt_input(conv_weight, in_chans, cells)


def reparameterize_model(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Branches that train apart, and batch norms of mobile networks, as the one layer they amount to."""
    from ._features import family_of
    from ._fusing import UNFUSED, reparameterized

    model = model if inplace else deepcopy(model)
    return model if family_of(model) in UNFUSED else reparameterized(model)


def reinit_non_persistent_buffers(model: nn.Module) -> list[str]:
    """Compute the buffers again that no state dict holds; names of the modules that have such."""
    names = [name for name, module in model.named_modules() if module._non_persistent_buffers_set]
    for name in names:
        module = model.get_submodule(name)
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()  # type: ignore[operator]
    return names
