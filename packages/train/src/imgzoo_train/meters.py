"""Running sums of a step, kept on the device until a log row asks for them."""

from __future__ import annotations

from typing import Any

import torch


class Meters:
    """Sums of loss and images since the last log row; times are kept apart, since no two runs share them."""

    def __init__(self) -> None:
        self.loss = torch.zeros((), dtype=torch.float64)
        self.grad_norm = torch.zeros((), dtype=torch.float64)
        self.images = 0
        self.updates = 0
        self.wait_seconds = 0.0
        self.step_seconds = 0.0

    def add(self, loss: torch.Tensor, grad_norm: torch.Tensor, images: int) -> None:
        """Add an update: mean loss of its images, norm of its gradient, images of all ranks. Waits for nothing."""
        self.loss = self.loss.to(loss.device) + loss.detach().double() * images
        self.grad_norm = self.grad_norm.to(loss.device) + grad_norm.detach().double()
        self.images += images
        self.updates += 1

    def take(self) -> dict[str, float]:
        """Means since the last call, and a fresh start; this is where the host waits for the device."""
        seconds = self.step_seconds + self.wait_seconds
        row = {
            "loss": float(self.loss) / max(1, self.images),
            "grad_norm": float(self.grad_norm) / max(1, self.updates),
            "images": self.images,
            "images_per_second": self.images / seconds if seconds else 0.0,
            "data_wait": self.wait_seconds / seconds if seconds else 0.0,
        }
        self.__init__()
        return row

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss, "grad_norm": self.grad_norm, "images": self.images, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__init__()
        for name, value in state.items():
            setattr(self, name, value)
