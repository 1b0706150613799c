"""Running sums of a step, kept on the device until a log row asks for them."""

from __future__ import annotations

from typing import Any

import torch


class Meters:
    """Sums of loss and images since the last log row; times are kept apart, since no two runs share them."""

    def __init__(self) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device="cpu")
        self.grad_norm = torch.zeros((), dtype=torch.float64, device="cpu")
        self.images = 0
        self.updates = 0
        self.left_out = 0
        self.left_out_images = 0
        self.wait_seconds = 0.0
        self.step_seconds = 0.0

    def add(self, loss: torch.Tensor, grad_norm: torch.Tensor, images: int) -> None:
        """Add an update: mean loss of its images, norm of its gradient, images of all ranks. Waits for nothing."""
        losses, norm = loss.detach().double() * images, grad_norm.detach().double()
        self.loss = self.loss.to(loss.device) + losses if self.updates else losses
        self.grad_norm = self.grad_norm.to(norm.device) + norm if self.updates else norm
        self.images += images
        self.updates += 1

    def skip(self, images: int) -> None:
        """Count an update that was not finite and was left out."""
        self.left_out += 1
        self.left_out_images += images

    def take(self) -> dict[str, float]:
        """Means since the last call, and a fresh start; this is where the host waits for the device.

        `left_out` counts updates that were not finite; without any other there is no loss.
        """
        seconds = self.step_seconds + self.wait_seconds
        images = self.images + self.left_out_images
        row = {
            "images": images,
            "images_per_second": images / seconds if seconds else 0.0,
            "data_wait": self.wait_seconds / seconds if seconds else 0.0,
        }
        if self.updates:
            means = {"loss": float(self.loss) / max(1, self.images), "grad_norm": float(self.grad_norm) / self.updates}
            row = {**means, **row}
        if self.left_out:
            row["left_out"] = self.left_out
        self.__init__()
        return row

    def state_dict(self) -> dict[str, Any]:
        names = ("loss", "grad_norm", "images", "updates", "left_out", "left_out_images")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__init__()
        for name, value in state.items():
            setattr(self, name, value)
