"""MBConv families for imgzoo."""

from imgzoo.door import lazy_door

__all__ = ["__version__"]

__getattr__, __dir__ = lazy_door(__name__, {})
