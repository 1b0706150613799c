"""Batch norms of a finished network, initial weights, and tracing."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo_layers import init, norm_act

STATISTICS = ("running_mean", "running_var")


@torch.no_grad()
def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Normal values cut off at the absolute bounds a and b; the same as the field's under the same seed."""
    low, high = (math.erf((bound - mean) / (std * math.sqrt(2))) for bound in (a, b))
    tensor.uniform_(low, high).erfinv_().mul_(std * math.sqrt(2)).add_(mean)
    return tensor.clamp_(a, b)


@torch.no_grad()
def trunc_normal_tf_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """The same, cut off at a and b standard deviations."""
    return trunc_normal_(tensor, 0.0, 1.0, a, b).mul_(std).add_(mean)


def variance_scaling_(tensor: Tensor, scale: float = 1.0, mode: str = "fan_in", distribution: str = "normal") -> Tensor:
    if distribution != "truncated_normal":
        return init.variance_scaling_(tensor, scale, mode, distribution)
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(tensor)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    return trunc_normal_tf_(tensor, std=math.sqrt(scale / fan) / 0.87962566103423978)  # what the cut leaves of one


def lecun_normal_(tensor: Tensor) -> Tensor:
    """Truncated normal of variance 1 / fan_in."""
    return variance_scaling_(tensor, distribution="truncated_normal")


def is_meta_device(device: Any) -> bool:
    return device is not None and torch.device(device).type == "meta"


def init_weight_vit(module: nn.Module, name: str, init_bias: float = 0.02, head_bias: float = 0.0,
                    classifier_name: str = "head") -> None:  # fmt: skip
    """Linear and convolution weights truncated normal of std 0.02; the classifier's bias is `head_bias`."""
    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        if name.startswith(classifier_name):
            nn.init.zeros_(module.weight)
            nn.init.constant_(module.bias, head_bias)  # type: ignore[arg-type]
            return
        trunc_normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.constant_(module.bias, init_bias)
    elif hasattr(module, "init_weights"):
        module.init_weights()  # type: ignore[operator]


def init_weight_jax(module: nn.Module, name: str, head_bias: float = 0.0, classifier_name: str = "head") -> None:
    """As ViT began in JAX: linear layers by Xavier, mlp biases nearly zero, the classifier zero."""
    if isinstance(module, nn.Linear):
        if name.startswith(classifier_name):
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.constant_(module.bias, head_bias)
        else:
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=1e-6) if "mlp" in name else nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        lecun_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif hasattr(module, "init_weights"):
        module.init_weights()  # type: ignore[operator]


def copied(new: Any, old: Any) -> Any:
    for name in ("weight", "bias", *STATISTICS):
        value = getattr(old, name, None)
        if value is not None:
            getattr(new, name).data.copy_(value.data)
    return new


def convert_sync_batchnorm(module: Any, process_group: Any = None) -> Any:
    """Batch norms that share statistics over the processes; their activations are kept."""
    if isinstance(module, nn.BatchNorm2d) and hasattr(module, "act"):
        act = module.act
        plain = nn.BatchNorm2d(module.num_features, module.eps, module.momentum).to(module.weight.device)
        plain.load_state_dict(module.state_dict(), strict=False)
        new: Any = nn.SyncBatchNorm.convert_sync_batchnorm(plain, process_group)
        new.__class__ = SyncBatchNormAct
        new.act = act
        return new.train(module.training)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return nn.SyncBatchNorm.convert_sync_batchnorm(module, process_group)
    for name, child in module.named_children():
        setattr(module, name, convert_sync_batchnorm(child, process_group))
    return module


class SyncBatchNormAct(nn.SyncBatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))  # type: ignore[operator]


class SplitBatchNorm2d(nn.BatchNorm2d):
    """While training, each part of the batch has statistics of its own; the first part's are the ones that stay."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True,
                 track_running_stats: bool = True, num_splits: int = 2, device: Any = None,
                 dtype: Any = None):  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        if num_splits < 2:
            raise ValueError(f"a batch is split into two parts or more, not {num_splits}")
        self.num_splits = num_splits
        options = (num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.aux_bn = nn.ModuleList(nn.BatchNorm2d(*options) for _ in range(num_splits - 1))
        self.act: nn.Module = nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.normalized(input))

    def normalized(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        if input.shape[0] % self.num_splits:
            raise ValueError(f"a batch of {input.shape[0]} does not split into {self.num_splits} parts")
        first, *rest = input.split(input.shape[0] // self.num_splits)
        return torch.cat([super().forward(first), *(norm(part) for norm, part in zip(self.aux_bn, rest))])


def convert_splitbn_model(module: nn.Module, num_splits: int = 2) -> nn.Module:
    """Every batch norm of a network as `SplitBatchNorm2d`, each part with a copy of its values."""
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):
        return module
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        new = SplitBatchNorm2d(module.num_features, module.eps, module.momentum or 0.1, module.affine,
                               module.track_running_stats, num_splits).to(next(module.parameters()).device)  # fmt: skip
        state = {name: value for name, value in module.state_dict().items()}
        new.load_state_dict(state, strict=False)
        for norm in new.aux_bn:
            norm.load_state_dict(state)
        new.act = getattr(module, "act", None) or nn.Identity()
        return new.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, convert_splitbn_model(child, num_splits))
    return module


def settled(model: nn.Module) -> dict[str, Any]:
    """The defaults of what a network takes beside its images: tracers see one path."""
    signature = inspect.signature(model.forward).parameters.values()
    return {each.name: each.default for each in signature if each.default is not each.empty}


def create_feature_extractor(model: nn.Module, return_nodes: Any) -> nn.Module:
    from torchvision.models.feature_extraction import create_feature_extractor as create

    return create(model, return_nodes, tracer_kwargs=untraced(), concrete_args=settled(model))


def get_graph_node_names(model: nn.Module) -> Any:
    from torchvision.models.feature_extraction import get_graph_node_names as names

    return names(model, tracer_kwargs=untraced(), concrete_args=settled(model))


def untraced() -> dict[str, Any]:
    """What tracers do not look into, in torchvision's words."""
    return {"leaf_modules": list(_leaf_modules), "autowrap_functions": tuple(_leaf_functions)}


_leaf_modules: set[type] = {norm_act.BatchNormAct2d}  # a graph would leave out what it counts
_leaf_functions: set[Any] = set()


def register_notrace_module(module: type) -> type:
    """Tracers see a call of such a module, not what is in it."""
    _leaf_modules.add(module)
    return module


def is_notrace_module(module: type) -> bool:
    return module in _leaf_modules


def get_notrace_modules() -> list[type]:
    return list(_leaf_modules)


def register_notrace_function(name_or_fn: Any) -> Any:
    _leaf_functions.add(name_or_fn)
    return name_or_fn


def is_notrace_function(func: Any) -> bool:
    return func in _leaf_functions


def get_notrace_functions() -> list[Any]:
    return list(_leaf_functions)


def ndgrid(*tensors: Tensor) -> tuple[Tensor, ...]:
    return torch.meshgrid(*tensors, indexing="ij")


def meshgrid(*tensors: Tensor) -> tuple[Tensor, ...]:
    return torch.meshgrid(*tensors, indexing="xy")
