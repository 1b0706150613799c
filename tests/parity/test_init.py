"""Initial values follow the same law as the peer's: constants, mean, spread and shape of every parameter."""

import re
import warnings

import pytest
import torch

import imgzoo

from kit import timm
from small import FACTS
from structures import COMPARED

pytestmark = pytest.mark.parity
SEEDS = 3
SIGMAS = 6  # of the sampling error: hundreds of tensors in a hundred networks are compared
LARGEST = 30e6  # parameters
FAR = 10  # standard deviations
ENOUGH = 1000  # values, to tell the shape of a distribution
FEW = 24  # values whose spread says nothing: only constants are told from draws
NAMES = [name for family in COMPARED.values() for name in family if FACTS[name][0] < LARGEST]


class Moments:
    """Count, mean, standard deviation and fourth standardized moment of a tensor over several draws.

    The peer's truncated normal rounds a draw to its bound, a hundred deviations out, once in some millions: values
    farther than `FAR` deviations are left out, and counted.
    """

    def __init__(self, draws: list[torch.Tensor]):
        values = torch.cat([draw.flatten() for draw in draws])
        self.count, self.first = values.numel(), values[0].item()
        sample = values[:: values.numel() // 10_000 + 1]
        middle = sample.median()
        width = (sample - middle).abs().median() * 1.4826  # the deviation of a normal distribution
        kept = values[(values - middle).abs() <= FAR * width] if width > 0 else values
        kept = kept if kept.numel() > 0.9 * values.numel() else values  # a law of two parts, as gated layers have
        self.outliers = self.count - kept.numel()
        self.constant = bool(values.min() == values.max())
        self.mean = kept.mean().item()
        self.std = kept.std(correction=0).item()
        self.fourth = 0.0 if self.constant else (kept - self.mean).div_(self.std).pow_(4).mean().item()


def draw(create, name: str, first_seed: int) -> dict[str, Moments]:
    drawn: dict[str, list[torch.Tensor]] = {}
    for seed in range(first_seed, first_seed + SEEDS):
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = create(name)
        for key, parameter in model.named_parameters():
            drawn.setdefault(key, []).append(parameter.detach())
    return {key: Moments(draws) for key, draws in drawn.items()}


def difference(ours: Moments, peer: Moments) -> str:
    """What sets two samples of the same size apart beyond their sampling error; empty for nothing."""
    if ours.constant or peer.constant:
        if ours.constant and peer.constant and abs(ours.first - peer.first) <= 1e-6 * abs(peer.first):
            return ""
        return f"{describe(ours)}, the peer has {describe(peer)}"
    if ours.count < FEW:
        return ""
    if ours.outliers and ours.count >= ENOUGH:
        return f"{ours.outliers} values far from all others"
    if peer.outliers > 1 + peer.count / 1e5:
        return f"the peer has {peer.outliers} values far from all others"
    error = (2 / ours.count) ** 0.5  # of a difference of two means, in standard deviations
    if abs(ours.mean - peer.mean) > SIGMAS * error * peer.std:
        return f"mean {ours.mean:.3g}, the peer has {peer.mean:.3g}"
    spread = error * ((max(peer.fourth, 1.01) - 1) / 4) ** 0.5
    if abs(ours.std / peer.std - 1) > SIGMAS * spread:
        return f"std {ours.std:.4g}, the peer has {peer.std:.4g}"
    if ours.count >= ENOUGH and abs(ours.fourth - peer.fourth) > SIGMAS * error * 24**0.5:
        return f"fourth moment {ours.fourth:.2f}, the peer has {peer.fourth:.2f} (normal 3, uniform 1.8)"
    return ""


def describe(moments: Moments) -> str:
    return f"{moments.first:.3g} everywhere" if moments.constant else f"std {moments.std:.4g}"


@pytest.mark.parametrize("name", NAMES)
def test_initial_values(name):
    ours, peer = draw(imgzoo.create_model, name, 0), draw(timm.create_model, name, 100)
    assert list(ours) == list(peer)
    found: dict[str, str] = {}
    for key, moments in ours.items():
        if what := difference(moments, peer[key]):
            found.setdefault(re.sub(r"\d+", "*", key), f"{key}: {what}")
    assert not found, "\n".join(found.values())
