"""`create_optimizer`: a name, a model and a few numbers become an optimizer with its parameter groups."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from imgzoo.errors import OptionError, PluginError, UsageError
from imgzoo.options import check_kinds, check_names
from imgzoo.registry import registry
from imgzoo.specs import NOTHING

from .options import accepted, check_values, plain, takes_any
from .param_groups import check_partition, decay_groups

PREFIX = "lookahead_"
LOOKAHEAD = {"lookahead_alpha": "alpha", "lookahead_k": "k"}
DEFAULT_MOMENTUM = 0.9
LAYOUT = operator.attrgetter("layout")


def optimizer_options(name: str) -> list[str]:
    """Names of the options that the optimizer `name` takes."""
    build = registry("optimizers").resolve(name.lower().removeprefix(PREFIX)).load()
    return sorted(accepted(build) - {"params"})


def _groups(model_or_params: Any, weight_decay: float, param_group_fn: Any, plan: dict[str, Any]) -> list[dict]:
    """The parameter groups: the model's by rule or by `param_group_fn`, or what the caller made."""
    model: nn.Module | None = model_or_params if isinstance(model_or_params, nn.Module) else None
    given: Any = model_or_params
    if param_group_fn is not None:
        if model is None:
            raise UsageError("param_group_fn needs the model, not its parameters")
        made = param_group_fn(model)
        groups = [dict(g) if isinstance(g, Mapping) else {"params": [g]} for g in made]
    elif model is not None:
        groups = decay_groups(model, weight_decay, **plan)
    else:
        groups = _given_groups(given, weight_decay, plan)
    for group in groups:
        params = group["params"]
        group["params"] = [params] if isinstance(params, torch.Tensor) else list(params)
        if group["params"] and all(isinstance(row, tuple) for row in group["params"]):
            group["names"], group["params"] = map(list, zip(*group["params"], strict=True))
    groups = [group for group in groups if group["params"]]
    if not groups:
        frozen = model is not None and any(True for _ in model.parameters())
        what = (
            "the model is wholly frozen; unfreeze some parameters" if frozen else "there are no parameters to optimize"
        )
        raise UsageError(what)
    check_partition(groups, model)
    return groups


def _given_groups(params: Iterable[Any], weight_decay: float, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Groups from tensors, (name, tensor) pairs or dictionaries; only named tensors can be told apart."""
    if isinstance(params, torch.Tensor) or not isinstance(params, Iterable):
        what = "one tensor" if isinstance(params, torch.Tensor) else f"a {type(params).__name__}"
        raise UsageError(f"pass a model or a list of parameters, not {what}")
    rows = list(params)
    if plan.get("layer_decay") is not None:
        raise UsageError("layer_decay needs the model, not its parameters")
    if rows and all(isinstance(row, Mapping) for row in rows):
        return [{key: value if key == "params" else plain(value) for key, value in row.items()} for row in rows]
    if rows and all(isinstance(row, tuple) for row in rows):
        return decay_groups(rows, weight_decay, **plan)
    if not all(isinstance(row, torch.Tensor) for row in rows):
        raise UsageError("parameters must be all tensors, all (name, tensor) pairs or all group dictionaries")
    return [{"params": rows}] if rows else []


def _can_fuse(build: Any, groups: list[dict[str, Any]], options: Mapping[str, Any]) -> bool:
    """Whether torch's fused kernel takes these parameters and nothing else was asked for."""
    asked = any(options.get(key) for key in ("foreach", "differentiable", "capturable")) or "fused" in options
    kinds = {(p.device.type, torch.is_floating_point(p)) for group in groups for p in group["params"]}
    return not asked and all(real and _has_fused(build, device) for device, real in kinds)


@functools.cache
def _has_fused(build: Any, device: str) -> bool:
    """Whether torch has the fused kernel of an optimizer for a device: a step of one number tells."""
    if device == "meta":
        return False
    one = nn.Parameter(torch.zeros(1, device=device))
    one.grad = torch.zeros(1, device=device)
    try:
        build([one], fused=True).step()
    except RuntimeError:
        return False
    return True


@functools.lru_cache(maxsize=4096)
def _fills(shape: torch.Size, strides: tuple[int, ...]) -> bool:
    """Whether a layout fills a stretch of memory, each element once."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def dense(x: torch.Tensor) -> bool:
    """Whether a tensor's elements fill a stretch of memory, each once, in whatever order."""
    return x.layout == torch.strided and (x.is_contiguous() or _fills(x.shape, x.stride()))


def alike(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether tensors of one shape are dense and keep their elements in the same order."""
    if set(map(LAYOUT, tensors)) != {torch.strided}:
        return False
    if all(map(torch.Tensor.is_contiguous, tensors)):
        return True
    return len(set(map(torch.Tensor.stride, tensors))) == 1 and dense(tensors[0])


def unfuse(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Step pre-hook: torch's fused kernels walk memory element by element, whatever the strides say.

    Groups with a parameter, gradient or state that is sparse, has gaps or lies in another order go the plain way. Those
    where some parameters have momentum and others not yet, which the kernel refuses, start the others from zeros.
    """
    for group in optimizer.param_groups:
        if not group.get("fused"):
            continue
        live = [param for param in group["params"] if param.grad is not None]
        for param in live:
            state = [x for x in optimizer.state.get(param, {}).values() if getattr(x, "shape", ()) == param.shape]
            if not alike([param, param.grad, *state]):
                group["fused"] = False
                break
        if group["fused"] and group.get("momentum"):
            _start_momentum(optimizer, group, live)


def _start_momentum(optimizer: torch.optim.Optimizer, group: dict[str, Any], live: list[nn.Parameter]) -> None:
    """Give parameters that join others under momentum theirs; dampening spares a first gradient, not one from zeros."""
    new = [param for param in live if optimizer.state[param].get("momentum_buffer") is None]
    if not new or len(new) == len(live):
        return
    if group["dampening"]:
        group["fused"] = False
        return
    for param in new:
        optimizer.state[param]["momentum_buffer"] = torch.zeros_like(param)


unfuse.travels = True  # type: ignore[attr-defined]


class NonFinite:
    """Step pre-hook for gradients with NaN or infinity: `raise` an error, or `skip` the step. Reads one number."""

    travels = True

    def __init__(self, policy: str):
        if policy not in ("raise", "skip"):
            raise UsageError(f"nonfinite must be raise or skip, got '{policy}'")
        self.policy = policy

    def __call__(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        from .clip import total_norm

        params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if bool(torch.isfinite(total_norm([p.grad for p in params]))):
            return
        if self.policy == "raise":
            raise UsageError("gradients hold NaN or infinity; lower the learning rate, clip, or say nonfinite='skip'")
        for param in params:
            param.grad = None


def _built(spec: Any, groups: Any, given: dict[str, Any], options: dict[str, Any]) -> torch.optim.Optimizer:
    """What the spec's target makes of the groups; what the user gave is told where it fails."""
    try:
        optimizer = spec.load()(groups, **given)
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "these parameters"
        raise UsageError(f"optimizer '{spec.name}' cannot be built with {shown}: {error}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        made = type(optimizer).__name__
        raise PluginError(f"plugin '{spec.plugin}': {spec.target} makes a {made}, and no torch.optim.Optimizer")
    return optimizer


def create_optimizer(
    name: str,
    model_or_params: Any,
    *,
    lr: float | torch.Tensor | None = None,
    weight_decay: float = 0.0,
    momentum: float | None = None,
    layer_decay: float | None = None,
    layer_decay_min_scale: float = 0.0,
    layer_decay_no_opt_scale: float | None = None,
    filter_bias_and_bn: bool = True,
    no_weight_decay: Sequence[str] = (),
    fallback: Sequence[str] = (),
    fallback_no_weight_decay: bool = False,
    param_group_fn: Callable[[nn.Module], Iterable[Any]] | None = None,
    nonfinite: str | None = None,
    **options: Any,
) -> torch.optim.Optimizer:
    """Build the optimizer `name` over a model or its parameters.

    Any name takes the prefix `lookahead_`. A model's parameters are grouped by `decay_groups`; `param_group_fn(model)`
    replaces that. `lr=None` means the rule's own default, `momentum=None` 0.9. `nonfinite` is what to do about NaN
    gradients: nothing, `raise` or `skip` the step. Torch's fused kernels are used where it has them.
    Raises `UnknownNameError`, `OptionError` (listing the valid options) or `UsageError`.
    """
    if not isinstance(name, str):
        raise UsageError(f"the optimizer's name comes first, then the model; got a {type(name).__name__} as the name")
    short = name.lower().removeprefix(PREFIX)
    spec = registry("optimizers").resolve(short)
    build = spec.load()
    options = {key: plain(value) for key, value in options.items()}
    outer = {key: options.pop(key) for key in LOOKAHEAD if key in options} if name.lower().startswith(PREFIX) else {}
    check_names(f"optimizer '{name}'", build, options, {"lr", "weight_decay", "momentum"})
    lr, weight_decay, momentum, layer_decay = map(plain, (lr, weight_decay, momentum, layer_decay))
    given = {**spec.kwargs, **options, "weight_decay": weight_decay}
    if lr is not None:
        given["lr"] = lr
    if "momentum" in spec.traits:
        given["momentum"] = DEFAULT_MOMENTUM if momentum is None else momentum
    elif momentum is not None:
        raise OptionError(f"optimizer '{name}' has no momentum; its options are {', '.join(optimizer_options(short))}")
    check_kinds(f"optimizer '{name}'", build, given)
    check_values(f"optimizer '{name}'", given, getattr(build, "ranges", NOTHING))
    if not takes_any(build) and "lr" not in accepted(build):
        given.pop("lr", None)

    plan = {
        "exclude": filter_bias_and_bn,
        "no_weight_decay": no_weight_decay,
        "fallback": fallback,
        "fallback_no_weight_decay": fallback_no_weight_decay,
        "layer_decay": layer_decay,
        "layer_decay_min_scale": plain(layer_decay_min_scale),
        "layer_decay_no_opt_scale": plain(layer_decay_no_opt_scale),
    }
    groups = _groups(model_or_params, weight_decay, param_group_fn, plan)
    if "fused" in spec.traits and _can_fuse(build, groups, given):
        given["fused"] = True
    optimizer = _built(spec, groups, given, options)
    _scale(optimizer)
    if given.get("fused"):
        optimizer.register_step_pre_hook(unfuse)
    if nonfinite is not None:
        optimizer.register_step_pre_hook(NonFinite(nonfinite))
    if name.lower().startswith(PREFIX):
        from .lookahead import Lookahead

        return Lookahead(optimizer, **{LOOKAHEAD[key]: value for key, value in outer.items()})
    return optimizer


def _scale(optimizer: torch.optim.Optimizer) -> None:
    """Let layer-wise decay act from the first step, with or without a schedule."""
    for group in optimizer.param_groups:
        if "lr_scale" in group and group["lr"] is not None:
            group["base_lr"] = float(group["lr"])
            group["lr"] = group["lr"] * group["lr_scale"]
