"""Swin V2 weights: as Swin's, the original ones with the coordinates of their tables stored."""

from .swin_transformer import FORMATS

__all__ = ["FORMATS"]
