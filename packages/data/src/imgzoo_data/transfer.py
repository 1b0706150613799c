"""Copies to a device that the host does not wait for."""

from __future__ import annotations

import numpy as np
import torch


def sent(values: torch.Tensor | np.ndarray, device: torch.device) -> torch.Tensor:
    """`values` on `device`; a copy to a GPU goes through pinned memory and runs behind what was asked of it before."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
