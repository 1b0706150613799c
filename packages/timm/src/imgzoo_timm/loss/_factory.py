"""Losses by name, and weights of classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo_train.loop import multilabel_losses as native
from imgzoo_train.loop.weighting import class_weights

from . import _losses

LOSS_TYPES = ("ce", "bce", "asl", "poly", "jsd", "twoway", "zlpr", "db")
MULTI_LABEL_LOSS_TYPES = ("bce", "asl", "poly", "twoway", "zlpr", "db")
CLASS_WEIGHT_METHODS = ("neg_pos", "inv_freq", "effective_num")
CLASS_WEIGHT_METHOD_KINDS = {"neg_pos": "pos_weight", "inv_freq": "class_weight", "effective_num": "class_weight"}
MODES = {"neg_pos": "positives", "inv_freq": "balanced", "effective_num": "effective"}


class DistributionBalancedLoss(native.DistributionBalanced):
    def __init__(self, class_counts: Any, num_samples: int, map_alpha: float = 0.1, map_beta: float = 10.0,
                 map_mu: float = 0.2, neg_scale: float = 2.0, init_bias: float = 0.05, focal_gamma: float = 2.0,
                 focal_balance: float = 2.0, smoothing: float = 0.0, reduction: str = "mean"):  # fmt: skip
        super().__init__(class_counts, num_samples, map_alpha, map_beta, map_mu, neg_scale, init_bias / neg_scale,
                         focal_gamma, focal_balance, smoothing, _losses._reduction(reduction))  # fmt: skip


def compute_class_weights(pos_counts: Any, num_samples: int, method: str = "neg_pos", power: float = 1.0,
                          beta: float = 0.999, max_weight: float | None = None) -> tuple[str, Tensor]:  # fmt: skip
    """Whether weights are `pos_weight` or `class_weight`, and the weights (C): the latter have mean 1 over classes."""
    if method not in MODES:
        raise ValueError(f"class weights are by {', '.join(CLASS_WEIGHT_METHODS)}, not {method!r}")
    counts = torch.as_tensor(pos_counts, dtype=torch.float64).clamp(min=1)
    if method == "effective_num":
        power = 1.0
    weights = class_weights(counts, MODES[method], beta, total=num_samples, power=power).double()
    if method != "neg_pos":
        weights = weights / weights.mean()
    weights = weights if max_weight is None else weights.clamp(max=max_weight)
    return CLASS_WEIGHT_METHOD_KINDS[method], weights.float()


def load_class_stats(path: str | None) -> tuple[Tensor, int] | None:
    """Positives of each class and the number of samples, of a JSON file with `pos_counts` and `num_samples`."""
    if not path:
        return None
    told = json.loads(Path(path).read_text())
    if not isinstance(told, dict) or not {"pos_counts", "num_samples"} <= told.keys():
        raise ValueError(f"{path} has no pos_counts and num_samples: write both into it")
    return torch.tensor(told["pos_counts"], dtype=torch.float32), int(told["num_samples"])


def load_class_weights(value: Any, key: str = "class_weight") -> Tensor | float | None:
    """One weight, several, or those of a file: JSON (a list, or a table with `key`), or numbers between commas."""
    if value is None or isinstance(value, (int, float)):
        return None if value is None else float(value)
    if isinstance(value, str):
        value = _weights_of(value, key)
    return value if isinstance(value, float) else torch.as_tensor(value, dtype=torch.float32)


def _weights_of(text: str, key: str) -> list[float] | float:
    path = Path(text)
    if path.is_file():
        text = path.read_text()
        if path.suffix == ".json":
            told = json.loads(text)
            if isinstance(told, dict) and key not in told:
                raise ValueError(f"{path} has no {key}: it has {', '.join(sorted(told))}")
            return told[key] if isinstance(told, dict) else told
    try:
        found = [float(each) for each in text.replace(",", " ").split()]
    except ValueError:
        raise ValueError(f"{key} is a number, numbers between commas or a file, not {text[:80]!r}") from None
    return found if len(found) != 1 or path.is_file() else found[0]


def resolve_class_weights(value: Any, kind: str = "class_weight", class_stats: tuple[Tensor, int] | None = None,
                          power: float = 1.0, beta: float = 0.999,
                          max_weight: float | None = None) -> Tensor | float | None:  # fmt: skip
    """The same, or the weights that a method finds from the statistics of `load_class_stats`."""
    if not isinstance(value, str) or value not in MODES:
        return load_class_weights(value, kind)
    if CLASS_WEIGHT_METHOD_KINDS[value] != kind:
        raise ValueError(f"the method {value} finds {CLASS_WEIGHT_METHOD_KINDS[value]}, not {kind}")
    if class_stats is None:
        raise ValueError(f"the method {value} needs the statistics of load_class_stats")
    return compute_class_weights(class_stats[0], class_stats[1], value, power, beta, max_weight)[1]


def _weight(value: Any) -> Tensor | None:
    return None if value is None else torch.as_tensor(value, dtype=torch.float32)


def create_classification_loss(
    loss_type: str | None = None, multi_label: bool = False, smoothing: float = 0.0, soft_targets: bool = False,
    class_weight: Any = None, pos_weight: Any = None, bce_target_thresh: float | None = None, bce_sum: bool = False,
    asl_gamma_pos: float = 1.0, asl_gamma_neg: float = 4.0, asl_clip: float | None = 0.05,
    asl_reduction: str = "batchmean", poly_epsilon: float = 2.0, poly_gamma: float = 0.0,
    poly_alpha: float | None = None, jsd_splits: int = 0, twoway_tp: float = 4.0, twoway_tn: float = 1.0,
    class_counts: Any = None, num_samples: int | None = None, db_neg_scale: float = 2.0, db_init_bias: float = 0.05,
    db_focal_gamma: float = 2.0,
) -> nn.Module:  # fmt: skip
    """The loss of a name: cross entropy unless told, of several labels the binary one."""
    kind = loss_type or ("bce" if multi_label else "ce")
    known = MULTI_LABEL_LOSS_TYPES if multi_label else LOSS_TYPES
    if kind not in known:
        raise ValueError(f"loss_type is {', '.join(known)}{' for several labels' * multi_label}, not {kind!r}")
    if not multi_label and kind in ("twoway", "zlpr", "db"):
        raise ValueError(f"the loss {kind} is of several labels: give multi_label=True")
    weighs = kind == "bce" or (kind == "asl" and multi_label)
    if (class_weight is not None or pos_weight is not None) and not weighs:
        raise ValueError(f"weights of classes go with bce, and with asl of several labels, not with {kind}")
    weights: dict[str, Any] = {"weight": _weight(class_weight), "pos_weight": _weight(pos_weight)}
    if kind == "db" and (class_counts is None or num_samples is None):
        raise ValueError("the loss db needs class_counts and num_samples")
    makers: dict[str, Any] = {
        "bce": lambda: _losses.BinaryCrossEntropy(smoothing, bce_target_thresh, sum_classes=bce_sum,
                                                  smooth_dense=multi_label, **weights),
        "jsd": lambda: _losses.JsdCrossEntropy(jsd_splits, smoothing=smoothing),
        "twoway": lambda: _losses.TwoWayLoss(twoway_tp, twoway_tn),
        "zlpr": _losses.ZlprLoss,
        "db": lambda: DistributionBalancedLoss(class_counts, num_samples or 0, neg_scale=db_neg_scale,
                                               init_bias=db_init_bias, focal_gamma=db_focal_gamma,
                                               smoothing=smoothing),
        "ce": lambda: _cross_entropy(smoothing, soft_targets),
        "asl": lambda: _losses.AsymmetricLossSingleLabel(asl_gamma_pos, asl_gamma_neg, smoothing),
        "poly": lambda: _losses.PolyCrossEntropy(poly_epsilon, smoothing),
    }  # fmt: skip
    if multi_label:
        makers["asl"] = lambda: _losses.AsymmetricLossMultiLabel(
            asl_gamma_neg, asl_gamma_pos, asl_clip or 0.0, smoothing=smoothing, reduction=asl_reduction,
            **weights)  # fmt: skip
        makers["poly"] = lambda: _losses.PolyBinaryCrossEntropy(poly_epsilon, poly_gamma, poly_alpha, smoothing)
    if kind == "jsd" and jsd_splits < 2:
        raise UsageError("the loss jsd compares splits of a batch: give jsd_splits of at least 2")
    return makers[kind]()


def _cross_entropy(smoothing: float, soft_targets: bool) -> nn.Module:
    if soft_targets:
        return _losses.SoftTargetCrossEntropy()
    return _losses.LabelSmoothingCrossEntropy(smoothing) if smoothing else nn.CrossEntropyLoss()
