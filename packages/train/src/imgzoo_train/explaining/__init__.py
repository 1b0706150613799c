"""Which pixels an answer rests on: four methods, and the picture and page that show what they found."""

from .explanation import Explanation, explain
from .methods import METHODS

__all__ = ["METHODS", "Explanation", "explain"]
