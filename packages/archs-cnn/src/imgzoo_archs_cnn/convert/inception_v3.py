"""Inception-v3 weights as torchvision publishes them: our names, and a second classifier that only training used."""

from imgzoo.loading.convert import Format

FORMATS = [Format("torchvision", r"^AuxLogits\.", [(r"^AuxLogits\..*", "")])]
