"""Pools before the classifier, and heads."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_layers import head as native
from imgzoo_layers.pool import GlobalPool

from ._act import create_act_layer
from ._base import adapter, placed, renamed
from ._helpers import to_2tuple
from ._norm_names import get_norm_layer


def adaptive_avgmax_pool2d(x: Tensor, output_size: Any = 1) -> Tensor:
    return 0.5 * (F.adaptive_avg_pool2d(x, output_size) + F.adaptive_max_pool2d(x, output_size))


def pool_to(x: Tensor, kind: str, size: tuple[int, int]) -> Tensor:
    if kind == "avg":
        return F.adaptive_avg_pool2d(x, size)
    if kind == "max":
        return F.adaptive_max_pool2d(x, size)
    average, most = F.adaptive_avg_pool2d(x, size), F.adaptive_max_pool2d(x, size)
    return 0.5 * (average + most) if kind == "avgmax" else torch.cat([average, most], 1)


def select_adaptive_pool2d(x: Tensor, pool_type: str = "avg", output_size: Any = 1) -> Tensor:
    if pool_type not in ("avg", "max", "avgmax", "catavgmax"):
        raise ValueError(f"pool_type is avg, max, avgmax or catavgmax, not {pool_type!r}")
    return pool_to(x, pool_type, to_2tuple(output_size))


class AdaptiveAvgMaxPool2d(nn.Module):
    def __init__(self, output_size: Any = 1):
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_avgmax_pool2d(x, self.output_size)


@adapter
class SelectAdaptivePool2d(GlobalPool):
    """By mean, maximum or both, to `output_size`; with `flatten` without the places."""

    __jit_unused_properties__: ClassVar[list[str]] = ["pool_type"]
    output_size = (1, 1)
    flat = True

    def __init__(self, output_size: Any = 1, pool_type: str = "fast", flatten: bool = False,
                 input_fmt: str = "NCHW"):  # fmt: skip
        super().__init__("avg", input_fmt == "NHWC")
        if input_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"input_fmt is 'NCHW' or 'NHWC', not {input_fmt!r}")
        self.output_size = to_2tuple(output_size)
        self.set(pool_type or "")
        self.flat = flatten
        if self.kind and self.output_size != (1, 1) and (pool_type.startswith("fast") or input_fmt == "NHWC"):
            raise ValueError("fast pooling, and that of (B, H, W, C), pools to one place")

    @property
    def pool_type(self) -> str:
        return self.kind

    @pool_type.setter
    def pool_type(self, kind: str) -> None:
        self.kind = kind

    def is_identity(self) -> bool:
        return not self.kind

    def feat_mult(self) -> int:
        return self.width

    pooled = renamed(GlobalPool.forward, "pooled")

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "":
            return x
        if self.output_size != (1, 1):
            x = pool_to(x, self.kind, self.output_size)
            return x.flatten(1) if self.flat else x
        pooled = self.pooled(x)
        if self.flat:
            return pooled
        return pooled[:, :, None, None] if self.dims == (2, 3) else pooled[:, None, None, :]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(pool_type={self.kind}, flatten={self.flat})"


def global_pool_nlc(x: Tensor, pool_type: str = "token", num_prefix_tokens: int = 1,
                    reduce_include_prefix: bool = False) -> Tensor:  # fmt: skip
    """Tokens (B, N, C) -> (B, C); all of them where `pool_type` is ""."""
    if not pool_type:
        return x
    if pool_type == "token":
        return x[:, 0]
    x = x if reduce_include_prefix else x[:, num_prefix_tokens:]
    if pool_type == "avg":
        return x.mean(dim=1)
    if pool_type == "max":
        return x.amax(dim=1)
    if pool_type == "avgmax":
        return 0.5 * (x.amax(dim=1) + x.mean(dim=1))
    raise ValueError(f"pool_type is token, avg, max or avgmax, not {pool_type!r}")


def create_classifier(num_features: int, num_classes: int, pool_type: str = "avg", use_conv: bool = False,
                      input_fmt: str = "NCHW", drop_rate: float | None = None, device: Any = None,
                      dtype: Any = None) -> tuple[nn.Module, ...]:  # fmt: skip
    """Pool and classifier, with `drop_rate` the dropout between them."""
    if not pool_type and num_classes and not use_conv:
        raise ValueError("a classifier without a pool is a convolution: give use_conv=True")
    pool = SelectAdaptivePool2d(pool_type=pool_type, flatten=not use_conv, input_fmt=input_fmt)
    width = num_features * pool.feat_mult()
    if num_classes <= 0:
        fc: nn.Module = nn.Identity()
    elif use_conv:
        fc = nn.Conv2d(width, num_classes, 1, device=device, dtype=dtype)
    else:
        fc = nn.Linear(width, num_classes, device=device, dtype=dtype)
    return (pool, fc) if drop_rate is None else (pool, nn.Dropout(drop_rate), fc)


def fitted(head: nn.Module, layer: nn.Module, like: Tensor | None, device: Any, dtype: Any) -> nn.Module:
    """A new layer of a head in its mode, where it is told, else where the head's parameters are."""
    if like is not None:
        device, dtype = device or like.device, dtype or like.dtype
    return layer.to(device=device, dtype=dtype).train(head.training)


@adapter
@placed
class ClassifierHead(native.ClassifierHead):
    def __init__(self, in_features: int, num_classes: int, pool_type: str = "avg", drop_rate: float = 0.0,
                 use_conv: bool = False, input_fmt: str = "NCHW"):  # fmt: skip
        super().__init__(in_features, 0, "avg", drop_rate, input_fmt == "NHWC")
        self.in_features, self.use_conv, self.input_fmt = in_features, use_conv, input_fmt
        self.reset(num_classes, pool_type)

    def reset(self: Any, num_classes: int, pool_type: str | None = None, device: Any = None,
              dtype: Any = None) -> None:  # fmt: skip
        """A new classifier, and another pool where one is named."""
        like = next(self.parameters(), None)
        width = getattr(self, "in_features", None)
        if width is None:
            width = self.fc.in_features // self.global_pool.width
        use_conv, layout = getattr(self, "use_conv", False), "NHWC" if self.channels_last else "NCHW"
        kind = self.global_pool.kind if pool_type is None else pool_type
        self.in_features = width
        self.global_pool, self.fc = create_classifier(width, num_classes, kind, use_conv or not kind, layout)
        if not kind and not use_conv and num_classes:
            self.fc = nn.Linear(width, num_classes)
        self.global_pool.train(self.training)
        self.fc = fitted(self, self.fc, like, device, dtype)

    flat = renamed(native.ClassifierHead.forward, "flat")

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        if not getattr(self, "use_conv", False):
            return self.flat(x, pre_logits)
        x = self.drop(self.global_pool(x))
        if pre_logits:
            return x.flatten(1)
        return self.fc(x).flatten(1) if self.global_pool.kind else self.fc(x)


@adapter
@placed
class NormMlpClassifierHead(native.NormMlpHead):
    def __init__(self, in_features: int, num_classes: int, hidden_size: int | None = None, pool_type: str = "avg",
                 drop_rate: float = 0.0, norm_layer: Any = "layernorm2d", act_layer: Any = "tanh"):  # fmt: skip
        norm = get_norm_layer(norm_layer)
        super().__init__(in_features, num_classes, pool_type, drop_rate, norm, hidden_size)
        if hidden_size:
            self.pre_logits.act = create_act_layer(act_layer)  # type: ignore[assignment]
        self.in_features, self.num_features = in_features, hidden_size or in_features

    def reset(self: Any, num_classes: int, pool_type: str | None = None, device: Any = None,
              dtype: Any = None) -> None:  # fmt: skip
        """A new classifier, and another pool where one is named."""
        like = next(self.parameters(), None)
        if pool_type is not None:
            self.set_pool(pool_type)
        width = getattr(self, "num_features", None) or self.fc.weight.shape[1]
        self.num_features = width
        self.fc = self.make_layer(width, num_classes) if num_classes > 0 else nn.Identity()
        self.fc = fitted(self, self.fc, like, device, dtype)


@placed
class ClNormMlpClassifierHead(nn.Module):
    """Pool, norm, hidden layer, classifier, channels last: (B, H, W, C), or tokens (B, N, C) -> (B, classes)."""

    def __init__(self, in_features: int, num_classes: int, hidden_size: int | None = None, pool_type: str = "avg",
                 drop_rate: float = 0.0, norm_layer: Any = "layernorm", act_layer: Any = "gelu",
                 input_fmt: str = "NHWC"):  # fmt: skip
        super().__init__()
        if input_fmt not in ("NHWC", "NLC"):
            raise ValueError(f"input_fmt is NHWC or NLC, not {input_fmt!r}")
        self.in_features, self.hidden_size, self.num_features = in_features, hidden_size, hidden_size or in_features
        self.pool_type, self.pool_dim = self.known(pool_type), (1,) if input_fmt == "NLC" else (1, 2)
        norm = get_norm_layer(norm_layer) or nn.Identity
        self.norm = norm(in_features)
        self.pre_logits: nn.Module = nn.Identity()
        if hidden_size:
            parts = {"fc": nn.Linear(in_features, hidden_size), "act": create_act_layer(act_layer) or nn.Identity()}
            self.pre_logits = nn.Sequential(OrderedDict(parts))
        self.drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def reset(self, num_classes: int, pool_type: str | None = None, reset_other: bool = False, device: Any = None,
              dtype: Any = None) -> None:  # fmt: skip
        """A new classifier; with `reset_other` norm and hidden layer go."""
        like = next(self.parameters(), None)
        self.pool_type = self.pool_type if pool_type is None else self.known(pool_type)
        if reset_other:
            self.norm = self.pre_logits = nn.Identity()
            self.num_features = self.in_features
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()
        self.fc = fitted(self, self.fc, like, device, dtype)

    @staticmethod
    def known(pool_type: str) -> str:
        if pool_type not in ("", "avg", "max", "avgmax"):
            raise ValueError(f"pool_type is avg, max, avgmax or '', not {pool_type!r}")
        return pool_type

    def pooled(self, x: Tensor) -> Tensor:
        if not self.pool_type:
            return x
        mean, most = x.mean(self.pool_dim), x.amax(self.pool_dim)
        return {"avg": mean, "max": most}.get(self.pool_type, 0.5 * (mean + most))

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.pre_logits(self.norm(self.pooled(x))))
        return x if pre_logits else self.fc(x)


class TestTimePoolHead(nn.Module):
    """Scores the map of a larger image place by place, and pools the scores (half mean, half maximum)."""

    __test__ = False

    def __init__(self, base: nn.Module, original_pool: Any = 7):
        super().__init__()
        self.base, self.original_pool = base, original_pool
        fc: Any = base.get_classifier()  # type: ignore[operator]
        if isinstance(fc, nn.Conv2d):
            self.fc = fc
        else:
            self.fc = nn.Conv2d(fc.in_features, fc.out_features, 1)
            self.fc.weight.data.copy_(fc.weight.data.view(self.fc.weight.shape))
            self.fc.bias.data.copy_(fc.bias.data)  # type: ignore[union-attr]
        base.reset_classifier(0)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        x = self.base.forward_features(x)  # type: ignore[operator]
        x = F.avg_pool2d(x, self.original_pool, 1)
        return adaptive_avgmax_pool2d(self.fc(x), 1).flatten(1)


def apply_test_time_pool(model: Any, config: Any, use_test_size: bool = False) -> tuple[nn.Module, bool]:
    """Put `TestTimePoolHead` around a network of maps where the configured image is larger than its own."""
    cfg = getattr(model, "default_cfg", None)
    if not cfg or (getattr(model, "fc", None) is None and getattr(model, "classifier", None) is None):
        return model, False
    own = cfg.get("test_input_size") if use_test_size and cfg.get("test_input_size") else cfg["input_size"]
    if min(config["input_size"][-2:]) <= min(own[-2:]) or not cfg.get("pool_size"):
        return model, False
    return TestTimePoolHead(model, original_pool=cfg["pool_size"]), True
