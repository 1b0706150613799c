"""Weights: where they come from, whether they may be used, how they enter a model, how they are saved."""

from .load import LoadReport, load_checkpoint
from .save import save_model
from .source import Source, locate

__all__ = ["LoadReport", "Source", "load_checkpoint", "locate", "save_model"]
