"""The smallest variant of every family, and images for it."""

import json
from pathlib import Path

import torch

from structures import SHRUNK, STRUCTURES

FACTS = {name: row for path in sorted((Path(__file__).parents[2] / "packages").glob("*/tests/facts/*.json"))
         for name, row in json.loads(path.read_text()).items()}  # fmt: skip
SMALLEST = {family: min(names, key=lambda name: FACTS[name][0]) for family, names in STRUCTURES.items()}
QUICK = {name: SHRUNK.get(family, {}) for family, name in SMALLEST.items()}  # options
SIZE = 96


def image(model, batch: int = 2) -> torch.Tensor:
    """Random images of a small size that the model takes: (batch, 3, h, w)."""
    config = model.pretrained_cfg
    height, width = config["input_size"][1:]
    if not config.get("fixed_input_size"):
        smallest = (config.get("min_input_size") or (3, SIZE, SIZE))[-1]
        height = width = min(height, max(SIZE, smallest))
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
