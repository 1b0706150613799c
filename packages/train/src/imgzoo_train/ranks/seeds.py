"""Random numbers of the model as a function of (seed, step, batch, rank), so that a resumed run draws the same."""

from __future__ import annotations

import hashlib

import torch

from .world import World


def derive(*parts: object) -> int:
    """A 63-bit seed from any values."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def reseed(seed: int, step: int, batch: int, world: World) -> None:
    """Seed the generators that dropout and stochastic depth draw from."""
    value = derive(seed, step, batch, world.rank)
    torch.default_generator.manual_seed(value)
    if world.device.type != "cpu":
        torch.get_device_module(world.device).manual_seed(value)
