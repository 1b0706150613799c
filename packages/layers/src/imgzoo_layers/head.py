"""From the last map to logits: pool, perhaps norm and a hidden layer, dropout, classifier."""

from typing import TYPE_CHECKING, Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from .act import Act, create_act
from .norm import Norm
from .pool import GlobalPool


def linear_or_none(dim: int, num_classes: int) -> nn.Module:
    """A classifier, or nothing where there are no classes."""
    return nn.Linear(dim, num_classes) if num_classes else nn.Identity()


class Head(nn.Module):
    """A pool, `global_pool`, and behind it a classifier `fc` that reads `dim` channels, or twice as many."""

    if TYPE_CHECKING:  # TorchScript would read annotations
        dim: int
        global_pool: GlobalPool

    @torch.jit.ignore  # type: ignore[arg-type]
    def make_layer(self, dim: int, dim_out: int, bias: bool = True) -> nn.Module:
        return nn.Linear(dim, dim_out, bias)

    @torch.jit.ignore  # type: ignore[arg-type]
    def create_classifier(self, num_classes: int) -> nn.Module:
        return self.make_layer(self.dim * self.global_pool.width, num_classes) if num_classes else nn.Identity()

    @torch.jit.ignore  # type: ignore[arg-type]
    def reset(self, num_classes: int, pool: str | None = None) -> None:
        """Put in a new classifier on the old one's device, and another pool if named; without classes there is none.

        A pool that the head cannot have is a `ValueError` and changes nothing.
        """
        if pool is not None:
            self.set_pool(pool)
        weight = next(self.parameters(), None)
        new = self.create_classifier(num_classes).train(self.training)
        self.fc = new if weight is None else new.to(weight.device, weight.dtype)

    @torch.jit.ignore  # type: ignore[arg-type]
    def set_pool(self, pool: str) -> None:
        """Another pool, or a `ValueError`; the classifier stays as it is."""
        self.global_pool.set(pool)


class ClassifierHead(Head):
    """Pool, dropout, linear: (B, C, H, W) -> (B, classes); (B, H, W, C) with `channels_last`."""

    def __init__(
        self, dim: int, num_classes: int, pool: str = "avg", drop_rate: float = 0.0, channels_last: bool = False
    ):
        super().__init__()
        self.dim, self.channels_last = dim, channels_last
        self.global_pool = GlobalPool(pool, channels_last)
        self.drop = nn.Dropout(drop_rate)
        self.fc = self.create_classifier(num_classes)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.global_pool(x))
        if pre_logits:
            return x
        if getattr(self.global_pool, "kind", "own") == "" and not self.channels_last:  # position by position
            return self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.fc(x)


class ConvClassifier(nn.Conv2d):
    """A classifier kept as a 1x1 convolution: (B, C) -> (B, classes), and (B, C, H, W) position by position."""

    def __init__(self, dim: int, num_classes: int, bias: bool = True):
        super().__init__(dim, num_classes, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return classified(x, self.weight, self.bias)


def classified(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, weight, bias) if x.ndim == 4 else F.linear(x, weight.flatten(1), bias)


torch.fx.wrap("classified")


class ConvClassifierHead(Head):
    """Pool, dropout, 1x1 convolution: (B, C, H, W) -> (B, classes)."""

    def __init__(self, dim: int, num_classes: int, pool: str = "avg", drop_rate: float = 0.0):
        super().__init__()
        self.dim = dim
        self.global_pool = GlobalPool(pool)
        self.drop = nn.Dropout(drop_rate)
        self.fc = self.create_classifier(num_classes)

    @torch.jit.ignore  # type: ignore[arg-type]
    def make_layer(self, dim: int, dim_out: int, bias: bool = True) -> nn.Module:
        return ConvClassifier(dim, dim_out, bias)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.global_pool(x))
        if getattr(self.global_pool, "kind", "own") != "":
            x = x.flatten(1)
        return x if pre_logits else self.fc(x)


def norm_and_head(
    dim: int,
    num_classes: int,
    pool: str,
    drop_rate: float,
    norm: Norm,
    norm_first: bool = False,
    hidden: int | None = None,
    act: Act = "gelu",
) -> tuple[nn.Module, Head]:
    """What stands between the last map and the pool, and the head: nothing and `NormMlpHead`, or the norm and a head
    without one if `norm_first`.

    Raises:
        ValueError: a hidden layer is asked for behind a norm in front of the pool.
    """
    if not norm_first:
        return nn.Identity(), NormMlpHead(dim, num_classes, pool, drop_rate, norm, hidden, act)
    if hidden:
        raise ValueError("head_norm_first=True leaves no hidden layer in the head: leave head_hidden out")
    return norm(dim), ClassifierHead(dim, num_classes, pool, drop_rate)


class NormMlpHead(Head):
    """Pool, norm, an optional hidden layer, dropout, linear: (B, C, H, W) -> (B, classes).

    Without a pool the layers are 1x1 convolutions, (B, C, H, W) -> (B, classes, H, W); with `convs=False` linear ones.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        pool: str = "avg",
        drop_rate: float = 0.0,
        norm: Norm | None = None,
        hidden: int | None = None,
        act: Act = "tanh",
        convs: bool = True,
    ):
        super().__init__()
        self.dim, self.convs = hidden or dim, convs
        self.global_pool = GlobalPool(pool, widens=False)
        self.norm = norm(dim) if norm else nn.Identity()
        self.pre_logits = nn.Sequential()
        if hidden:
            self.pre_logits.add_module("fc", self.make_layer(dim, hidden))
            self.pre_logits.add_module("act", create_act(act))
        self.drop = nn.Dropout(drop_rate)
        self.fc = self.create_classifier(num_classes)

    @torch.jit.ignore  # type: ignore[arg-type]
    def make_layer(self, dim: int, dim_out: int, bias: bool = True) -> nn.Module:
        """A linear layer, or a 1x1 convolution where it reads a map."""
        of_maps = self.convs and getattr(self.global_pool, "kind", "own") == ""
        return ConvClassifier(dim, dim_out, bias) if of_maps else nn.Linear(dim, dim_out, bias)

    @torch.jit.ignore  # type: ignore[arg-type]
    def set_pool(self, pool: str) -> None:
        """Another pool, or a `ValueError`; the hidden layer takes the form that it needs, and keeps its weights."""
        super().set_pool(pool)
        old = getattr(self.pre_logits, "fc", None)
        if isinstance(old, nn.Linear | ConvClassifier):
            dim_out, dim = old.weight.shape[:2]
            new: Any = self.make_layer(dim, dim_out).to(old.weight.device, old.weight.dtype).train(old.training)
            new.weight = nn.Parameter(old.weight.data.view_as(new.weight), old.weight.requires_grad)
            new.bias = old.bias
            self.pre_logits.fc = new

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        if getattr(self.global_pool, "kind", "own") == "" and self.convs:
            x = self.drop(self.pre_logits(self.norm(x)))
            return x if pre_logits else self.fc(x)
        if getattr(self.global_pool, "kind", "own") == "":  # norm and classifier look at every position
            x = self.drop(self.pre_logits(self.norm(x).permute(0, 2, 3, 1)))
            return (x if pre_logits else self.fc(x)).permute(0, 3, 1, 2)
        x = self.drop(self.pre_logits(self.norm(x.flatten(1)[:, :, None, None]).flatten(1)))
        return x if pre_logits else self.fc(x)
