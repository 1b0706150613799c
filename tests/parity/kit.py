"""Build the same model here and in the peer, share perturbed weights, and compare what both compute."""

import functools
import os
import warnings

import pytest
import torch

import imgzoo

from structures import REDUCED, SIZES

timm = pytest.importorskip("timm", reason="the peer library lives in the parity environment only")

TOLERANCE = 1e-5
RECORD = os.environ.get("IMGZOO_DIFFERENCES")
"""A file that every comparison adds a line to: test, what was compared, difference."""


def perturb(model: torch.nn.Module, seed: int = 0) -> None:
    """Move every parameter and buffer off its initial value, so that a swapped or unused one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.isinf().any():  # bounds are drawn so near that they bind
                tensor.copy_(tensor.sign() * (1 + noise.abs()))
            elif name.endswith("running_var"):
                tensor.mul_(1 + 0.2 * noise.abs())
            elif tensor.ndim <= 1 or tensor.abs().max() == 0:
                tensor.add_(0.1 * noise)
            else:
                tensor.add_(0.05 * tensor.std().clamp(min=1e-3) * noise)


def pair(name: str, seed: int = 0, **options):
    """The peer's model and ours with equal, perturbed weights, in eval mode."""
    options = {**REDUCED.get(name, {}), **options}
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = timm.create_model(name, **options).eval()
    perturb(peer, seed)
    ours = imgzoo.create_model(name, **options).eval()
    ours.load_state_dict(peer.state_dict(), strict=True)
    return peer, ours


def levels_of_peer(name: str, ours: torch.nn.Module, x: torch.Tensor, **options) -> tuple[list, list[int]]:
    """Feature maps and strides of the peer with perturbed weights, which `ours` is given too.

    Some families take an option only in their feature extractor, whose keys are those of the full model.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            peer = timm.create_model(name, **options).eval()
        except TypeError:
            peer = timm.create_model(name, features_only=True, **options).eval()
    perturb(peer)
    missing = ours.load_state_dict(peer.state_dict(), strict=False)
    assert not missing.unexpected_keys
    if hasattr(peer.feature_info, "reduction"):
        return peer(x), peer.feature_info.reduction()
    return peer.forward_intermediates(x, intermediates_only=True), [row["reduction"] for row in peer.feature_info]


def gap(ours, peer) -> float:
    """Largest difference relative to the peer's largest value; of lists, the worst of their tensors."""
    if isinstance(peer, list):
        return max(gap(a, b) for a, b in zip(ours, peer, strict=True))
    assert ours.shape == peer.shape, f"shape {tuple(ours.shape)}, the peer has {tuple(peer.shape)}"
    return ((ours - peer).abs().max() / peer.abs().max().clamp(min=1e-12)).item()


def image(size: int, channels: int = 3, batch: int = 2, seed: int = 0) -> torch.Tensor:
    """A smooth random batch, as photographs are: (batch, channels, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, channels, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return smooth + 0.1 * torch.randn(batch, channels, size, size, generator=generator)


@functools.cache
def input_sizes(name: str) -> tuple[int, int]:
    """The default size of a model, kept small where the model takes any, and another one."""
    if name in SIZES:
        return SIZES[name]
    config = imgzoo.create_model(name, device="meta").pretrained_cfg
    size = config["input_size"][-1]
    if config["fixed_input_size"]:
        return size, size
    return min(size, 160), min(size, 160) + 64


def assert_equal(ours: torch.Tensor, peer: torch.Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    difference = gap(ours, peer)
    if RECORD:
        with open(RECORD, "a") as file:
            file.write(f"{os.environ['PYTEST_CURRENT_TEST'].split()[0]}\t{what}\t{difference}\n")
    assert difference <= tolerance, f"{what}: {difference:.2e} apart"
