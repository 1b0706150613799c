"""BEiT weights of the original repository, fine-tuned: the places in its tables are stored."""

from imgzoo.loading.convert import Format

FORMATS = [Format("original", r"\.relative_position_index$", [(r".*\.relative_position_index$", "")])]
