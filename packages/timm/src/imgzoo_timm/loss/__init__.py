"""The field's losses."""

from imgzoo_timm._door import furnish

NAMES = """
cross_entropy        .loss._losses  LabelSmoothingCrossEntropy SoftTargetCrossEntropy
binary_cross_entropy .loss._losses  BinaryCrossEntropy
jsd                  .loss._losses  JsdCrossEntropy
asymmetric_loss      .loss._losses  AsymmetricLossMultiLabel AsymmetricLossSingleLabel
poly_loss            .loss._losses  PolyCrossEntropy PolyBinaryCrossEntropy
two_way_loss         .loss._losses  TwoWayLoss
zlpr_loss            .loss._losses  ZlprLoss
"""

__getattr__, __dir__ = furnish(__name__, NAMES, "`imgzoo list --kind loss` names imgzoo's losses")
