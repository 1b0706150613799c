"""An image on its way through a pipeline: a uint8 tensor and a Pillow image of the same pixels, made when asked for."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from imgzoo.errors import DataError


class Picture:
    """uint8 pixels as a tensor (C, H, W), as a Pillow image (1 or 3 channels), or both."""

    __slots__ = ("_pil", "_tensor")

    def __init__(self, tensor: torch.Tensor | None = None, pil: Image.Image | None = None):
        self._tensor, self._pil = tensor, pil

    @property
    def tensor(self) -> torch.Tensor:
        """(C, H, W) uint8"""
        if self._tensor is None:
            assert self._pil is not None
            self._tensor = torch.from_numpy(np.stack([np.asarray(plane) for plane in self._pil.split()]))
        return self._tensor

    @property
    def pil(self) -> Image.Image:
        """The same pixels as a Pillow image of mode L or RGB."""
        if self._pil is None:
            assert self._tensor is not None
            planes = [Image.fromarray(plane) for plane in self._tensor.contiguous().numpy()]
            if len(planes) not in (1, 3):
                raise DataError(f"this transform works on gray and RGB images, not on {len(planes)} channels")
            self._pil = planes[0] if len(planes) == 1 else Image.merge("RGB", planes)
        return self._pil

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        if self._tensor is not None:
            return self._tensor.shape[1], self._tensor.shape[2]
        assert self._pil is not None
        return self._pil.height, self._pil.width
