"""Renames from the foreign formats in which weights of these families were published."""
