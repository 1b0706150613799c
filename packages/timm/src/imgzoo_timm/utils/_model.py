"""Models in training: wrappers, averages, frozen parts, scalers, clipping."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from imgzoo_optim import clip_gradients
from imgzoo_train.techniques.averages import rounded_at_random

from ._reading import load_checkpoint_metadata


def unwrap_model(model: Any) -> Any:
    """The network inside averages, `DataParallel`, any wrapper that calls it `module`, and `torch.compile`."""
    while True:
        if isinstance(model, (ModelEma,)):
            model = model.ema
        elif isinstance(getattr(model, "module", None), nn.Module):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


def get_state_dict(model: Any, unwrap_fn: Callable[[Any], Any] = unwrap_model) -> dict[str, Any]:
    return unwrap_fn(model).state_dict()


def average_(own: list[torch.Tensor], new: list[torch.Tensor], weight: float, foreach: bool) -> None:
    """own + weight * (new - own), in place; buffers of whole numbers are copied."""
    pairs = [(a, b.detach().to(a.device)) for a, b in zip(own, new)]
    for a, b in pairs:
        if not a.is_floating_point():
            a.copy_(b)
    floats = [(a, b.to(a.dtype)) for a, b in pairs if a.is_floating_point()]
    if floats and foreach:
        torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], weight=weight)  # type: ignore[attr-defined]
        return
    for a, b in floats:
        a.lerp_(b, weight)


class ModelEmaV2(nn.Module):
    """A copy of a model (`module`) whose state dict follows it: `decay` of itself, the rest of the model."""

    def __init__(self, model: nn.Module, decay: float = 0.9999, device: Any = None):
        super().__init__()
        self.module = copy.deepcopy(model)
        self.module.eval()
        self.decay, self.device = decay, device
        if device is not None:
            self.module.to(device=device)

    @torch.no_grad()
    def _update(self, model: nn.Module, update_fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        for own, new in zip(self.module.state_dict().values(), unwrap_model(model).state_dict().values()):
            own.copy_(update_fn(own, new.to(own.device)))

    def update(self, model: nn.Module) -> None:
        self._update(model, lambda own, new: self.decay * own + (1.0 - self.decay) * new)

    def set(self, model: nn.Module) -> None:
        self._update(model, lambda own, new: new)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


class ModelEmaV3(nn.Module):
    """The same with a warm-up of the decay, by update number, and averages that bfloat16 does not round away."""

    def __init__(self, model: nn.Module, decay: float = 0.9999, min_decay: float = 0.0, update_after_step: int = 0,
                 use_warmup: bool = False, warmup_gamma: float = 1.0, warmup_power: float = 2 / 3,
                 device: Any = None, dtype: Any = None, stochastic_rounding: bool = True,
                 stochastic_rounding_seed: int = 0, foreach: bool = True, exclude_buffers: bool = False):  # fmt: skip
        super().__init__()
        self.module = copy.deepcopy(model)
        self.module.eval()
        self.decay, self.min_decay, self.update_after_step = decay, min_decay, update_after_step
        self.use_warmup, self.warmup_gamma, self.warmup_power = use_warmup, warmup_gamma, warmup_power
        self.foreach, self.device, self.dtype, self.exclude_buffers = foreach, device, dtype, exclude_buffers
        self.stochastic_rounding, self.stochastic_rounding_seed = stochastic_rounding, stochastic_rounding_seed
        self.draws = 0  # updates so far: each rounds by numbers of its own
        if device is not None or dtype is not None:
            self.module.to(device=device, dtype=dtype)

    def get_decay(self, step: int | None = None) -> float:
        if step is None:
            return self.decay
        step = max(0, step - self.update_after_step - 1)
        if step <= 0:
            return 0.0
        if not self.use_warmup:
            return self.decay
        decay = 1 - (1 + step / self.warmup_gamma) ** -self.warmup_power
        return max(min(decay, self.decay), self.min_decay)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int | None = None) -> None:
        self.apply_update_(unwrap_model(model), self.get_decay(step))

    def tensors(self, model: nn.Module) -> list[torch.Tensor]:
        return list(model.parameters()) if self.exclude_buffers else list(model.state_dict().values())

    @torch.no_grad()
    def apply_update_(self, model: nn.Module, decay: float) -> None:
        own, new = self.tensors(self.module), self.tensors(model)
        self.draws += 1
        low = [(a, b) for a, b in zip(own, new) if self.stochastic_rounding and a.dtype in (torch.bfloat16,)]
        for i, (a, b) in enumerate(low):
            drawn = torch.Generator(a.device).manual_seed(hash((self.stochastic_rounding_seed, self.draws, i)))
            a.copy_(rounded_at_random(a.float().lerp(b.to(a.device).float(), 1.0 - decay), a.dtype, drawn))
        rest = [(a, b) for a, b in zip(own, new) if not any(a is each for each, _ in low)]
        average_([a for a, _ in rest], [b for _, b in rest], 1.0 - decay, self.foreach)
        if self.exclude_buffers:
            for a, b in zip(self.module.buffers(), model.buffers()):
                a.copy_(b)

    @torch.no_grad()
    def set(self, model: nn.Module) -> None:
        for own, new in zip(self.module.state_dict().values(), unwrap_model(model).state_dict().values()):
            own.copy_(new.to(own.device))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


class ModelEma:
    """The first form: the copy is `ema`, its parameters need no gradient."""

    def __init__(self, model: nn.Module, decay: float = 0.9999, device: Any = "", resume: str = ""):
        self.ema = copy.deepcopy(model)
        self.ema.eval()
        self.decay, self.device = decay, device
        if device:
            self.ema.to(device=device)
        self.ema_has_module = hasattr(self.ema, "module")
        if resume:
            self._load_checkpoint(resume)
        for parameter in self.ema.parameters():
            parameter.requires_grad_(False)

    def _load_checkpoint(self, checkpoint_path: str) -> None:
        stored = load_checkpoint_metadata(checkpoint_path)
        if "state_dict_ema" in stored:
            self.ema.load_state_dict({key.removeprefix("module."): each for key, each in
                                      stored["state_dict_ema"].items()})  # fmt: skip

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        new = unwrap_model(model).state_dict()
        for key, own in unwrap_model(self.ema).state_dict().items():
            own.copy_(own * self.decay + (1.0 - self.decay) * new[key].detach().to(own.device))


def dispatch_clip_grad(parameters: Any, value: float, mode: str = "norm", norm_type: float = 2.0) -> None:
    """Clip gradients by `norm`, `value` or `agc`."""
    clip_gradients(parameters, value, mode, norm_type=norm_type)


def adaptive_clip_grad(parameters: Any, clip_factor: float = 0.01, eps: float = 1e-3, norm_type: float = 2.0) -> None:
    from imgzoo_optim.clip import clip_adaptively

    params = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
    clip_adaptively([each for each in params if each.grad is not None], clip_factor, norm_type, eps)


class NativeScaler:
    """torch's gradient scaler with the backward pass, clipping and step in one call."""

    state_dict_key = "amp_scaler"

    def __init__(self, device: str = "cuda"):
        self._scaler = torch.amp.GradScaler(device=device, enabled=device != "cuda" or torch.cuda.is_available())

    def __call__(self, loss: torch.Tensor, optimizer: Any, clip_grad: float | None = None, clip_mode: str = "norm",
                 parameters: Any = None, create_graph: bool = False, need_update: bool = True) -> None:  # fmt: skip
        self._scaler.scale(loss).backward(create_graph=create_graph)
        if not need_update:
            return
        if clip_grad is not None:
            if parameters is None:
                raise ValueError("clipping needs the parameters")
            self._scaler.unscale_(optimizer)
            dispatch_clip_grad(parameters, clip_grad, mode=clip_mode)
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return self._scaler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._scaler.load_state_dict(state_dict)


class ApexScaler:
    state_dict_key = "amp"

    def __init__(self) -> None:
        raise NotImplementedError("apex's amp is not supported: use NativeScaler, or imgzoo's precision='fp16'")


def freeze(root_module: nn.Module, submodules: Any = (), include_bn_running_stats: bool = True) -> None:
    """Parameters of submodules (all of them unless named) take no gradient, and their batch norms no statistics."""
    _switch(root_module, submodules, include_bn_running_stats, False)


def unfreeze(root_module: nn.Module, submodules: Any = (), include_bn_running_stats: bool = True) -> None:
    _switch(root_module, submodules, include_bn_running_stats, True)


def _switch(root: nn.Module, names: Any, norms: bool, enable: bool) -> None:
    from imgzoo_timm.layers._frozen import freeze_batch_norm_2d, unfreeze_batch_norm_2d

    if isinstance(root, (nn.BatchNorm2d, nn.SyncBatchNorm)) and norms:
        raise ValueError("a batch norm cannot be changed in place: give the module that holds it")
    names = [names] if isinstance(names, str) else list(names)
    if not names:  # all of it, with what the root holds itself
        for parameter in root.parameters(recurse=False):
            parameter.requires_grad_(enable)
        names = [name for name, _ in root.named_children()]
    for name in names:
        module = root.get_submodule(name)
        for parameter in module.parameters():
            parameter.requires_grad_(enable)
        if norms:
            changed = unfreeze_batch_norm_2d(module) if enable else freeze_batch_norm_2d(module)
            if changed is not module:
                parent, _, last = name.rpartition(".")
                setattr(root.get_submodule(parent), last, changed)


def reparameterize_model(model: nn.Module, inplace: bool = False) -> nn.Module:
    from imgzoo_timm.models._manipulate import reparameterize_model as fused

    return fused(model, inplace)
