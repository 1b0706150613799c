"""The interface of networks: what a family declares, and what the base makes of it."""

from imgzoo.features import Feature, FeatureInfo

from .classifier import Distilled, Parts
from .image import ImageModel
from .levels import Shortened
from .patches import Patches, is_patches, take_patches
from .swapping import Checkpointed, repeated, swap_in, swap_out
from .tokens import DistilledTokens, TokenModel

__all__ = ["Checkpointed", "Distilled", "DistilledTokens", "Feature", "FeatureInfo", "ImageModel", "Parts", "Patches",
           "Shortened", "TokenModel", "is_patches", "repeated", "swap_in", "swap_out", "take_patches"]  # fmt: skip
