"""MobileNetV3 weights of torchvision."""

from . import torchvision

FORMATS = [torchvision.FORMAT]
