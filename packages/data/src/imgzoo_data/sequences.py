"""Batches of patch sequences: packing in workers, normalizing, erasing and mixing on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from imgzoo.model import Patches

from .device import DeviceStage
from .erasing import erase_boxes
from .mixing import Mix
from .order import BatchKey
from .rng import Purpose, generator
from .transfer import sent
from .transforms.sequences import SequenceCrop, patchify
from .worker import Fault, Fetched, Fetcher, stack_targets


class SequenceFetcher(Fetcher):
    """Lays images out as patches (B, L, P * P * C), short ones padded; L is the size in force, so shapes are few."""

    def pack(self, key: BatchKey, rows: list[Any], faults: tuple[Fault, ...]) -> Fetched:
        crop = self.transform.crop
        assert isinstance(crop, SequenceCrop)
        patch, length = crop.size(key.size)
        shape = (len(rows), length, patch * patch * self.transform.config.input_size[0])
        pixels = self.slots.view(key.slot, shape)
        coord = np.zeros((len(rows), length, 2), np.int64)
        valid = np.zeros((len(rows), length), bool)
        for place, row in enumerate(rows):
            patches, places = patchify(row[0][0], patch)
            count = len(patches)
            pixels[place, :count] = patches
            pixels[place, count:] = 0
            coord[place, :count] = places
            valid[place, :count] = True
        targets = stack_targets([row[1] for row in rows]) if rows else np.zeros(0, np.int64)
        indices, views = (np.array([row[i] for row in rows], np.int64) for i in (2, 3))
        return Fetched(key, shape, targets, indices, views, faults, {"coord": coord, "valid": valid})


class SequenceStage(DeviceStage):
    """Gives `images` as `Patches`: (B, L, D), (B, L, 2) int64 and (B, L) bool."""

    def __call__(self, fetched: Fetched, position: int) -> tuple[Any, torch.Tensor, torch.Tensor]:
        pixels = self.slots.view(fetched.key.slot, fetched.shape)
        targets, coord, valid = (
            sent(array, self.device) for array in (fetched.targets, fetched.extra["coord"], fetched.extra["valid"])
        )
        if not self.normalize:
            patches = self._move(pixels)
        else:
            channels = len(self.transform.config.mean)
            repeats = fetched.shape[2] // channels
            scale, shift = self.scale.flatten().repeat(repeats), self.shift.flatten().repeat(repeats)
            patches = self._move(pixels).float().mul_(scale).add_(shift).mul_(valid[:, :, None])
            self._erase(patches, fetched)
            if self.mixer is not None:
                mix = self.draw(fetched.key.epoch, fetched.key.step, position, len(patches), (256, 256))
                shares = mix_sequences(patches, fetched.extra["coord"], fetched.extra["valid"], mix)
                none = np.zeros((len(patches), 4), np.int64)
                targets = self.mixer.targets(targets, Mix(shares, none))
            patches = patches.to(self.dtype)
        images = Patches(patches, coord, valid)
        return images, targets, torch.from_numpy(fetched.indices)

    def _erase(self, patches: torch.Tensor, fetched: Fetched) -> None:
        """Erase boxes of whole patches."""
        erase = self.transform.erase
        if erase.p <= 0:
            return
        noise = torch.Generator()
        for row, (index, view) in enumerate(zip(fetched.indices.tolist(), fetched.views.tolist())):
            coord, valid = fetched.extra["coord"][row], fetched.extra["valid"][row]
            height, width = coord.max(axis=0) + 1
            rng = generator(self.seed, fetched.key.epoch, index, view, Purpose.ERASE)
            for top, left, h, w in erase_boxes(erase, rng, int(height), int(width)):
                gone = np.flatnonzero(_inside(coord, (top, top + h, left, left + w)) & valid)
                noise.manual_seed(int(rng.integers(1 << 62)))
                shape = {"const": (), "rand": (patches.shape[2],), "pixel": (len(gone), patches.shape[2])}[erase.mode]
                value = torch.randn(shape, generator=noise, device="cpu") if shape else torch.zeros((), device="cpu")
                patches[row, sent(gone, patches.device)] = sent(value, patches.device)


def _inside(coord: np.ndarray, box: Any) -> np.ndarray:
    return (coord[:, 0] >= box[0]) & (coord[:, 0] < box[1]) & (coord[:, 1] >= box[2]) & (coord[:, 1] < box[3])


def mix_sequences(patches: torch.Tensor, coord: np.ndarray, valid: np.ndarray, mix: Mix) -> np.ndarray:
    """Mix neighbors in place where their grids overlap; returns (B,) the share each sample keeps of its own target.

    Boxes are shares of 256 of the common grid, so that one draw serves grids of any shape.
    """
    shares = np.ones(len(patches))
    for left in range(0, len(patches) - 1, 2):
        right = left + 1
        grids = [coord[i][valid[i]].max(axis=0) + 1 for i in (left, right)]
        common = np.minimum(*grids)
        kept = patches[left : right + 1].clone()
        for me, other, mine, others in ((left, right, 0, 1), (right, left, 1, 0)):
            if mix.lam[me] == 1:
                continue
            box, weight = _region(mix.boxes[me], float(mix.lam[me]), common)
            into, source = (
                sent(np.flatnonzero(_inside(coord[i], box) & valid[i]), patches.device) for i in (me, other)
            )
            patches[me, into] = kept[mine, into] * weight + kept[others, source] * (1 - weight)
            shares[me] = 1 - (1 - weight) * len(into) / valid[me].sum()
    return shares


def _region(box: np.ndarray, lam: float, common: np.ndarray) -> tuple[tuple[int, int, int, int], float]:
    """Where two grids are mixed (top, bottom, left, right) and the weight kept there."""
    if not box.any():
        return (0, int(common[0]), 0, int(common[1])), lam
    edges = [round(float(edge) * side / 256) for edge, side in zip(box, np.repeat(common, 2))]
    return (edges[0], edges[1], edges[2], edges[3]), 0.0
