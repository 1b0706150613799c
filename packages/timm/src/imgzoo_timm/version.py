"""The version of the field's library whose names and signatures these are; the distribution's own is its metadata's."""

__version__ = "1.0.31"
