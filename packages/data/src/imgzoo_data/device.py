"""The last stage, in the main process: copy a batch out of its slot, normalize, erase, mix; on the device, on a side
stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from .erasing import erase_batch
from .mixing import Mix, Mixer
from .transfer import sent
from .transforms.pipeline import Transform
from .worker import Fetched, Slots


class Pool:
    """Output memory used again once nobody refers to it: fresh pages cost more than normalizing an image.

    Whether a storage is still in use is read from its reference count; where torch does not tell, memory is always new.
    """

    def __init__(self, most: int = 4):
        self._most = most
        self._held: list[torch.Tensor] = []

    def take(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """An uninitialized tensor that shares memory with none in use."""
        size = int(np.prod(shape))
        for held in self._held:
            if held.dtype == dtype and held.numel() >= size and _references(held) == 1:
                return held[:size].view(shape)
        fresh = torch.empty(size, dtype=dtype, device="cpu")
        if _references(fresh) == 1:
            self._held = [fresh, *self._held][: self._most]
            return fresh[:size].view(shape)
        return fresh.view(shape)


def _references(tensor: torch.Tensor) -> int:
    count = getattr(torch._C, "_storage_Use_Count", None)
    if count is None:
        return -1
    storage = tensor.untyped_storage()
    # the storage object just made is itself one reference beside the tensor's
    return count(storage._cdata) - 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep short operations off the thread pool: its threads would wait, spinning, on cores that workers need."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class DeviceStage:
    """Turns what workers fetched into (images, targets, indices) on `device`."""

    def __init__(
        self,
        transform: Transform,
        slots: Slots,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        normalize: bool = True,
        channels_last: bool = False,
        mixer: Mixer | None = None,
    ):
        self.transform, self.slots, self.seed, self.mixer = transform, slots, seed, mixer
        self.device, self.dtype, self.normalize = torch.device(device), dtype, normalize
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        mean, std = np.array(transform.config.mean), np.array(transform.config.std)
        self.scale = torch.tensor(1 / (255 * std), dtype=torch.float32, device=self.device)[:, None, None]
        self.shift = torch.tensor(-mean / std, dtype=torch.float32, device=self.device)[:, None, None]
        self.pool = Pool()
        self.cuda = self.device.type == "cuda"

    def __call__(self, fetched: Fetched, position: int) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """The finished batch; `position` is its first sample's place in the global batch."""
        pixels = self.slots.view(fetched.key.slot, fetched.shape)
        targets = sent(fetched.targets, self.device)
        indices = torch.from_numpy(fetched.indices)
        if not self.normalize:
            return self._move(pixels), targets, indices
        images = self._normalize(pixels)
        erase = self.transform.erase
        if erase.p > 0:
            first = len(images) // self.transform.splits if self.transform.splits > 1 else 0
            erase_batch(images, erase, self.seed, fetched.key.epoch, indices.tolist(), fetched.views.tolist(), first)
        if self.mixer is not None:
            mix = self.draw(
                fetched.key.epoch, fetched.key.step, position, len(images), (images.shape[2], images.shape[3])
            )
            images, targets = self.mixer.images(images, mix), self.mixer.targets(targets, mix)
        return images.to(dtype=self.dtype, memory_format=self.format), targets, indices

    def draw(self, epoch: int, step: int, position: int, count: int, size: tuple[int, int]) -> Mix:
        """The mixing draw of a step, as `mixer.draw`."""
        assert self.mixer is not None
        return self.mixer.draw(self.seed, epoch, step, position, count, size)

    def _move(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cpu":
            out = self.pool.take(tuple(pixels.shape), torch.uint8)
            return out.copy_(pixels)
        staged = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=self.cuda, device="cpu").copy_(pixels)
        return staged.to(self.device, non_blocking=True)

    def _normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.device.type != "cpu":
            return self._move(pixels).float().mul_(self.scale).add_(self.shift)
        out = self.pool.take(tuple(pixels.shape))
        with one_thread():
            for image, raw in zip(out, pixels):  # image by image, so that the three passes stay in the cache
                image.copy_(raw).mul_(self.scale).add_(self.shift)
        return out


def overlapped(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Prepare batch k+1 on a side stream while batch k is used; on a CPU the batches as they come.

    `batches` must do its device work when asked for the next item.
    """
    if device.type != "cuda":
        yield from batches
        return
    side, iterator, ready = torch.cuda.Stream(device), iter(batches), None
    while True:
        with torch.cuda.stream(side):
            following = next(iterator, None)
        if ready is not None:
            yield ready
        if following is None:
            return
        torch.cuda.current_stream(device).wait_stream(side)
        for tensor in _tensors(following):
            tensor.record_stream(torch.cuda.current_stream(device))
        ready = following


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if value.is_cuda:
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
