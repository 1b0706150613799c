"""VGG weights of torchvision, whose first layers of the classifier are linear."""

from imgzoo.loading.convert import Format

from .convnext import reshape

LINEAR = [
    (r"^classifier\.0\.", "pre_logits.fc1."),
    (r"^classifier\.3\.", "pre_logits.fc2."),
    (r"^classifier\.6\.", "head.fc."),
]
FORMATS = [Format("torchvision", r"^classifier\.6\.", LINEAR, reshape)]
"""Renames from the foreign formats in which weights of these families were published."""
