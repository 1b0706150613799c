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
distribution_balanced_loss .loss._losses  DistributionBalancedLoss
class_weights        .loss._factory CLASS_WEIGHT_METHODS CLASS_WEIGHT_METHOD_KINDS compute_class_weights
class_weights        .loss._factory load_class_stats load_class_weights resolve_class_weights
_loss_factory        .loss._factory LOSS_TYPES MULTI_LABEL_LOSS_TYPES create_classification_loss
"""

__getattr__, __dir__ = furnish(__name__, NAMES, "`imgzoo list --kind loss` names imgzoo's losses")
