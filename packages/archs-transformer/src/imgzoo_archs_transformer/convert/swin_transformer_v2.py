"""Swin V2 weights of the original repository: as Swin's, with the coordinates of its tables stored."""

from imgzoo.loading.convert import Format

from .swin_transformer import RULES, shift_merging

RULES = [(r".*\.relative_coords_table$", ""), *RULES]
FORMATS = [Format("original", r"^layers\.0\.downsample\.|\.relative_coords_table$", RULES, shift_merging)]
