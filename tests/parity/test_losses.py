"""Every loss that the peer has beside its own, on images and classes without positives or negatives too."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from imgzoo_train import create_loss

peer = pytest.importorskip("timm.loss", reason="needs the parity environment")
pytestmark = pytest.mark.parity

GENERATOR = torch.Generator().manual_seed(0)
OUTPUT = 2 * torch.randn(6, 5, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.tensor([0, 1, 2, 3, 4, 0])
LABELS = (torch.arange(30).view(6, 5) % 3 == 0).double()
LABELS[0], LABELS[1] = 0, 1
LABELS[:, 2], LABELS[2:, 3] = 0, 1
COUNTS = [9.0, 4.0, 1.0, 3.0, 12.0]
WEIGHT = torch.arange(1.0, 6.0)

ROWS: list[tuple[str, dict[str, Any], str, dict[str, Any], torch.Tensor]] = [
    ("smoothing", {}, "LabelSmoothingCrossEntropy", {}, TARGET),
    ("soft-target", {}, "SoftTargetCrossEntropy", {}, OUTPUT.flip(0).softmax(1)),
    ("bce", {"smoothing": 0.1}, "BinaryCrossEntropy", {}, TARGET),
    ("bce", {"smoothing": 0.1}, "BinaryCrossEntropy", {"smooth_dense": True}, LABELS),
    ("bce", {"threshold": 0.2}, "BinaryCrossEntropy", {"smoothing": 0, "target_threshold": 0.2}, LABELS * 0.5),
    ("bce", {"sum_classes": True}, "BinaryCrossEntropy", {"smoothing": 0, "sum_classes": True}, LABELS),
    ("bce", {"weight": WEIGHT, "pos_weight": WEIGHT}, "BinaryCrossEntropy",
     {"smoothing": 0, "weight": WEIGHT, "pos_weight": WEIGHT}, LABELS),
    ("asymmetric", {}, "AsymmetricLossMultiLabel", {}, LABELS),
    ("asymmetric", {"smoothing": 0.1, "weight": WEIGHT, "pos_weight": WEIGHT}, "AsymmetricLossMultiLabel",
     {"smoothing": 0.1, "weight": WEIGHT, "pos_weight": WEIGHT}, LABELS),
    ("asymmetric", {"gamma_neg": 0.0, "gamma_pos": 0.0, "margin": 0.0}, "AsymmetricLossMultiLabel",
     {"gamma_neg": 0, "gamma_pos": 0, "clip": 0.0}, LABELS),
    ("asymmetric-single", {"gamma_pos": 1.0}, "AsymmetricLossSingleLabel", {}, TARGET),
    ("jsd", {"smoothing": 0.1}, "JsdCrossEntropy", {}, TARGET),
    ("poly", {"epsilon": 2.0, "smoothing": 0.1}, "PolyCrossEntropy", {"smoothing": 0.1}, TARGET),
    ("poly-bce", {"epsilon": 2.0}, "PolyBinaryCrossEntropy", {}, LABELS),
    ("poly-bce", {"gamma": 2.0, "alpha": 0.25, "smoothing": 0.1}, "PolyBinaryCrossEntropy",
     {"epsilon": 1.0, "gamma": 2.0, "alpha": 0.25, "smoothing": 0.1}, LABELS),
    ("two-way", {}, "TwoWayLoss", {}, LABELS),
    ("zlpr", {}, "ZlprLoss", {}, LABELS),
    ("distribution-balanced", {"counts": COUNTS, "total": 20, "bias": 0.0, "gamma": 2.0},
     "DistributionBalancedLoss", {"class_counts": COUNTS, "num_samples": 20, "map_mu": 0.3, "neg_scale": 5.0,
                                  "init_bias": 0.0}, LABELS),
]  # fmt: skip


@pytest.mark.parametrize("name, mine, cls, theirs, target", ROWS, ids=[f"{row[0]}-{i}" for i, row in enumerate(ROWS)])
def test_losses_equal_the_peers(name: str, mine: dict, cls: str, theirs: dict, target: torch.Tensor) -> None:
    other = getattr(peer, cls)(**theirs)
    expected = other(OUTPUT.float(), target.float() if target.is_floating_point() else target)
    torch.testing.assert_close(create_loss(name, **mine)(OUTPUT, target).float(), expected, rtol=2e-6, atol=1e-6)
