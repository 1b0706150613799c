"""Tiny networks and data that the tests of imgzoo-train share."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from imgzoo_train.loop.state import State


class Batch(NamedTuple):
    images: torch.Tensor
    targets: torch.Tensor
    indices: Any = None


class Net(nn.Module):
    """A convolution, an optional batch norm, dropout and a linear head over (B, 1, 8, 8) images."""

    def __init__(self, classes: int = 4, norm: bool = True, drop: float = 0.2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.drop = nn.Dropout(drop)
        self.head = nn.Linear(6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(F.relu(self.norm(self.conv(x))).mean((2, 3))))


def make_net(seed: int = 0, **options: Any) -> Net:
    torch.manual_seed(seed)
    return Net(**options)


def make_state(seed: int = 0, opt: str = "sgd", lr: float = 0.1, **options: Any) -> State:
    net = make_net(seed, **options)
    kinds = {
        "sgd": lambda: torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9),
        "adamw": lambda: torch.optim.AdamW(net.parameters(), lr=lr),
    }
    return State(net, kinds[opt](), seed=seed)


def make_data(count: int = 64, classes: int = 4, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose class is the quarter that is bright."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes, (count,), generator=generator)
    images = torch.rand(count, 1, 8, 8, generator=generator)
    for index, target in enumerate(targets.tolist()):
        row, column = divmod(target, 2)
        images[index, 0, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 1.0
    return images, targets


def batches(images: torch.Tensor, targets: torch.Tensor, size: int) -> list[Batch]:
    return [
        Batch(images[i : i + size], targets[i : i + size], torch.arange(i, min(i + size, len(images))))
        for i in range(0, len(images), size)
    ]


def cross_entropy(model: nn.Module, batch: Batch) -> torch.Tensor:
    return F.cross_entropy(model(batch.images), batch.targets)


def equal_states(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Bitwise equality of two nested states."""
    from imgzoo_train.files.packing import pack

    plain_left, tensors_left = pack(left)
    plain_right, tensors_right = pack(right)
    return (
        plain_left == plain_right
        and tensors_left.keys() == tensors_right.keys()
        and all(torch.equal(tensors_left[name], tensors_right[name]) for name in tensors_left)
    )
