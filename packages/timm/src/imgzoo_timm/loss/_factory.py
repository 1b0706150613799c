"""Losses by name, and weights of classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo_train.loop.weighting import class_weights

from . import _losses

LOSS_TYPES = ("ce", "bce", "asl", "poly", "jsd", "twoway", "zlpr", "db")
MULTI_LABEL_LOSS_TYPES = ("bce", "asl", "poly", "twoway", "zlpr", "db")
CLASS_WEIGHT_METHODS = ("neg_pos", "inv_freq", "effective_num")
CLASS_WEIGHT_METHOD_KINDS = {"neg_pos": "pos_weight", "inv_freq": "class_weight", "effective_num": "class_weight"}
MODES = {"neg_pos": "positives", "inv_freq": "balanced", "effective_num": "effective"}


def compute_class_weights(pos_counts: Any, num_samples: int, method: str = "neg_pos", power: float = 1.0,
                          beta: float = 0.999, max_weight: float | None = None) -> tuple[str, Tensor]:  # fmt: skip
    """Whether weights are `pos_weight` or `class_weight`, and the weights (C): the latter have mean 1 over classes."""
    if method not in MODES:
        raise ValueError(f"class weights are by {', '.join(CLASS_WEIGHT_METHODS)}, not {method!r}")
    counts = torch.as_tensor(pos_counts, dtype=torch.float64)
    if counts.ndim != 1 or not len(counts) or num_samples < 1 or not ((counts >= 0) & (counts <= num_samples)).all():
        raise ValueError("pos_counts are one or more counts from 0 to num_samples, which is at least 1")
    if not 0 < beta < 1:
        raise ValueError(f"beta lies between 0 and 1, not at {beta}")
    counts = counts.clamp(min=1)
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
    """One weight, several, or those of a file: JSON (a list, or a table with `key`), or numbers between commas.

    Raises:
        ValueError: a weight is no number of at least 0.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool):
        raise ValueError(f"{key} is a number, numbers between commas or a file, not {value}")
    found: Any = _weights_of(value, key) if isinstance(value, str) else value
    weights = torch.as_tensor(found, dtype=torch.float32)
    if not (weights.isfinite() & (weights >= 0)).all():
        raise ValueError(f"weights of classes are finite numbers of at least 0, not {found}")
    return float(found) if weights.ndim == 0 else weights


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


def create_classification_loss(
    loss_type: str | None = None, multi_label: bool = False, smoothing: float = 0.0, soft_targets: bool = False,
    class_weight: Any = None, pos_weight: Any = None, bce_target_thresh: float | None = None, bce_sum: bool = False,
    asl_gamma_pos: float = 1.0, asl_gamma_neg: float = 4.0, asl_clip: float | None = 0.05,
    asl_reduction: str = "batchmean", poly_epsilon: float = 2.0, poly_gamma: float = 0.0,
    poly_alpha: float | None = None, jsd_splits: int = 0, twoway_tp: float = 4.0, twoway_tn: float = 1.0,
    class_counts: Any = None, num_samples: int | None = None, db_neg_scale: float = 2.0, db_init_bias: float = 0.05,
    db_focal_gamma: float = 2.0,
) -> nn.Module:  # fmt: skip
    """The loss of a name: cross entropy unless told, of several labels the binary one.

    `soft_targets` says that mixing has smoothed the targets already. An option that the loss does not have is refused.
    """
    kind = loss_type or ("bce" if multi_label else "ce")
    if kind not in LOSS_TYPES:
        raise ValueError(f"Unknown loss type {kind!r}: there are {', '.join(LOSS_TYPES)}")
    if multi_label and kind not in MULTI_LABEL_LOSS_TYPES:
        known = ", ".join(MULTI_LABEL_LOSS_TYPES)
        raise ValueError(f"the loss {kind} does not support multi-label targets: {known} do")
    given = {
        "class_weight": class_weight is not None, "pos_weight": pos_weight is not None, "bce_sum": bce_sum,
        "bce_target_thresh": bce_target_thresh is not None, "class_counts": class_counts is not None,
        "num_samples": num_samples is not None, "soft_targets": soft_targets, "smoothing": smoothing > 0,
        "asl_reduction": asl_reduction != "batchmean", "poly_gamma": poly_gamma != 0,
        "poly_alpha": poly_alpha is not None,
    }  # fmt: skip
    sentence = _misfit(kind, multi_label, {name for name, told in given.items() if told}, jsd_splits)
    if sentence:
        raise ValueError(sentence)
    smoothing = 0.0 if soft_targets else smoothing
    weights: dict[str, Any] = {"weight": _weight(class_weight), "pos_weight": _weight(pos_weight)}
    makers: dict[str, Any] = {
        "bce": lambda: _losses.BinaryCrossEntropy(smoothing, bce_target_thresh, sum_classes=bce_sum,
                                                  smooth_dense=multi_label, **weights),
        "jsd": lambda: _losses.JsdCrossEntropy(jsd_splits, smoothing=smoothing),
        "twoway": lambda: _losses.TwoWayLoss(twoway_tp, twoway_tn),
        "zlpr": _losses.ZlprLoss,
        "db": lambda: _losses.DistributionBalancedLoss(class_counts, num_samples or 0, neg_scale=db_neg_scale,
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
    return makers[kind]()


def _misfit(kind: str, multi_label: bool, given: set[str], jsd_splits: int) -> str | None:
    """What of the options does not go with a loss, in a sentence."""
    weighs = kind == "bce" or (kind == "asl" and multi_label)
    refused = (
        ({"class_weight", "pos_weight"}, not weighs, "only supported by bce and multi-label asl"),
        ({"bce_sum", "bce_target_thresh"}, kind != "bce", "options that only apply to the bce loss"),
        ({"class_counts", "num_samples"}, kind != "db", "only used by the db loss"),
        ({"smoothing", "soft_targets"}, kind in ("twoway", "zlpr"), "not for losses of binary targets"),
        ({"soft_targets"}, kind == "asl" and not multi_label, "not for asl of one label: leave Mixup/CutMix out"),
        ({"asl_reduction"}, kind == "asl" and not multi_label, "'batchmean' for asl of one label"),
        ({"poly_gamma", "poly_alpha"}, kind == "poly" and not multi_label, "only for poly of multi-label targets"),
    )
    for names, misfits, why in refused:
        if misfits and given & names:
            return f"{' and '.join(sorted(given & names))}, given with the loss {kind}: {why}"
    if kind in ("twoway", "zlpr", "db") and not multi_label:
        return f"the loss {kind} requires multi-label targets: give multi_label=True"
    if kind == "db" and not {"class_counts", "num_samples"} <= given:
        return "the loss db requires class_counts and num_samples"
    if kind == "jsd" and jsd_splits < 2:
        return "the loss jsd compares splits of a batch: give jsd_splits of at least 2"
    return None


def _weight(value: Any) -> Tensor | None:
    return None if value is None else torch.as_tensor(value, dtype=torch.float32)


def _cross_entropy(smoothing: float, soft_targets: bool) -> nn.Module:
    if soft_targets:
        return _losses.SoftTargetCrossEntropy()
    return _losses.LabelSmoothingCrossEntropy(smoothing) if smoothing else nn.CrossEntropyLoss()
