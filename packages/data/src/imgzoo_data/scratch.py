"""Working memory that a thread keeps: large arrays asked anew from the system would be cleared for every image."""

from __future__ import annotations

import threading

import numpy as np


class Scratch(threading.local):
    """One piece of memory a thread, which grows; each use overwrites the last."""

    data = np.empty(0, np.uint8)

    def of(self, size: int) -> np.ndarray:
        """(size,) uint8 whose address is a multiple of 64."""
        if self.data.size < size + 63:
            self.data = np.empty(size + 63, np.uint8)
        start = -self.data.ctypes.data % 64
        return self.data[start : start + size]
