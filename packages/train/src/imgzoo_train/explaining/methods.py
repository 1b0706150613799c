"""Grad-CAM (arXiv:1610.02391), occlusion (arXiv:1311.2901), integrated gradients (arXiv:1703.01365) and attention
rollout (arXiv:2005.00928), by the formulas of their papers in plain torch.

Each takes a network in evaluation, an image (1, C, H, W) as the network sees it, and the number of an output, and
returns (H, W): what of the output before its activation is owed to each pixel. Zero is the mean color.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import CapabilityError, ImgzooWarning
from imgzoo.features import Feature, to_map
from imgzoo.model.levels import is_grid
from imgzoo.model.tokens import TokenModel
from imgzoo_layers import set_fused_attn
from imgzoo_train.models.deployed import Deployed
from imgzoo_train.models.parity import first_output

STEPS = 32
"""Points on the way from the mean color to the image, for integrated gradients."""
BATCH = 16
"""Images that the network sees at a time."""


def gradcam(model: Any, image: Tensor, index: int) -> Tensor:
    """Channels of a level, weighted by the mean of their gradients; what speaks against the class is left out.

    The level is the last one that the answer hears of: behind a class token the last block's patches do not count.
    """
    _need_gradients(model, "gradcam")
    modules = dict(model.named_modules())
    levels = [level for level in model.feature_info.levels if level.module in modules]
    with _kept([_ending(modules[level.module]) for level in levels]) as kept, torch.enable_grad():
        score = first_output(model(image.requires_grad_()))[0, index]
        states = [(levels[place], state) for place, state in kept if _tensor(model, state).requires_grad]
        tensors = [_tensor(model, state) for _, state in states]
        gradients = torch.autograd.grad(score, tensors, allow_unused=True) if tensors else ()
    for (level, state), tensor, gradient in zip(reversed(states), reversed(tensors), reversed(gradients)):
        if gradient is None:
            continue
        slopes, values = (_as_map(model, level, state, each, image) for each in (gradient, tensor.detach()))
        if slopes is not None and values is not None and slopes.any():
            weights = slopes.mean((2, 3), keepdim=True)
            return _enlarged((weights * values).sum(1).relu(), image)
    raise CapabilityError(f"{model.name} shows no map of features that its answer rests on: use --method occlusion")


def occlusion(model: Any, image: Tensor, index: int) -> Tensor:
    """How far the output falls where a window of the mean color lies, averaged over the windows at a pixel.

    A window is an eighth of the image high and wide, and moves by half of itself.
    """
    height, width = image.shape[-2:]
    tall, broad = -(height // -8), -(width // -8)
    corners = [(y, x) for y in _starts(height, tall) for x in _starts(width, broad)]
    total, count = torch.zeros(height, width), torch.zeros(height, width)
    with torch.inference_mode():
        whole = float(first_output(model(image))[0, index])
        for first in range(0, len(corners), BATCH):
            group = corners[first : first + BATCH]
            images = image.repeat(len(group), 1, 1, 1)
            for hidden, (y, x) in zip(images, group):
                hidden[:, y : y + tall, x : x + broad] = 0
            for (y, x), score in zip(group, first_output(model(images))[:, index].tolist()):
                total[y : y + tall, x : x + broad] += whole - score
                count[y : y + tall, x : x + broad] += 1
    return total / count


def integrated_gradients(model: Any, image: Tensor, index: int) -> Tensor:
    """The mean gradient on the straight way from the mean color to the image, times the way, summed over channels.

    Summed over pixels it is the output for the image less that for the mean color, up to the error of `STEPS` points; a
    warning says where that is more than a fifth of it.
    """
    _need_gradients(model, "integrated-gradients")
    total = torch.zeros_like(image)
    for part in ((torch.arange(STEPS, device=image.device) + 0.5) / STEPS).split(BATCH):
        with torch.enable_grad():
            points = (image.detach() * part[:, None, None, None]).requires_grad_()
            score = first_output(model(points))[:, index].sum()
            total += torch.autograd.grad(score, points)[0].sum(0, keepdim=True)
    found = (total / STEPS * image.detach()).sum(1)[0].cpu()
    with torch.inference_mode():
        ends = first_output(model(torch.cat([image.detach(), torch.zeros_like(image)])))[:, index]
    whole, gap = float(ends[0] - ends[1]), float(found.sum() - ends[0] + ends[1])
    if abs(gap) > max(0.2 * abs(whole), 1e-3):
        warnings.warn(
            f"{STEPS} steps of integrated gradients explain {whole + gap:.3g} of a difference of {whole:.3g}: "
            "--method occlusion needs no gradients",
            ImgzooWarning,
            stacklevel=2,
        )
    return found


def rollout(model: Any, image: Tensor, index: int) -> Tensor:
    """Attention followed from the last block to the patches, half of each block's being the way past it.

    It starts at what the classifier reads: the class token, or all patches alike. It is the same for every class.
    Raises `CapabilityError` where attention is missing, hidden, or not between all tokens once a block.
    """
    _need_gradients(model, "rollout")
    drops = [module for path, module in model.named_modules() if path.rpartition(".")[2] == "attn_drop"]
    fused = {module: module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")}
    set_fused_attn(model, False)
    try:
        with _kept(drops) as kept, torch.inference_mode():
            model(image)
    finally:
        for module, was in fused.items():
            module.fused_attn = was  # type: ignore[assignment]
    prefix, grid = getattr(model, "num_prefix_tokens", 0), _grid(model, image)
    tokens = prefix + (grid[0] * grid[1] if grid else 0)
    blocks = [weights.float().mean(1) for _, weights in kept if weights.ndim == 4]  # (B, queries, keys), heads alike
    alike = all(block.shape == (1, tokens, tokens) for block in blocks)
    one_each = len(blocks) == len(model.feature_info.levels) == len(drops)
    pool = model.pool_kind() if grid else ""
    if grid is None or not (blocks and alike and one_each):
        raise CapabilityError(
            f"{model.name} does not show one attention a block between all of its tokens: use --method gradcam"
        )
    if pool not in ("token", "avg", "max", "avgmax"):
        raise CapabilityError(f"{model.name} does not show what its pool '{pool}' attends to: use --method gradcam")
    row = torch.zeros(1, 1, tokens, device=image.device)
    if pool == "token":
        row[..., 0] = 1
    else:
        row[..., prefix:] = 1 / (tokens - prefix)
    for block in reversed(blocks):
        row = (row + row @ block) / 2
    return _enlarged(row[0, :, prefix:].unflatten(1, grid), image)


METHODS: dict[str, Callable[[Any, Tensor, int], Tensor]] = {
    "gradcam": gradcam,
    "rollout": rollout,
    "integrated-gradients": integrated_gradients,
    "occlusion": occlusion,
}


def _need_gradients(model: Any, method: str) -> None:
    if isinstance(model, Deployed):
        raise CapabilityError(f"{model.name} is deployed, {method} looks inside the network: use --method occlusion")


@contextmanager
def _kept(modules: list[nn.Module]) -> Iterator[list[tuple[int, Any]]]:
    """What the modules return while it is open, with their places, in the order of the forward pass."""
    kept: list[tuple[int, Any]] = []

    def keep(place: int, module: nn.Module, given: Any, output: Any) -> None:
        kept.append((place, output))

    hooks = [module.register_forward_hook(partial(keep, place)) for place, module in enumerate(modules)]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def _ending(module: nn.Module) -> nn.Module:
    """What returns the output of a module: the last one in a container, which may be run piece by piece."""
    while isinstance(module, (nn.Sequential, nn.ModuleList)) and len(module):
        module = module[-1]
    return module


def _tensor(model: Any, state: Any) -> Tensor:
    """The tensor of a state that is its level."""
    while isinstance(state, (tuple, list)):
        state = state[0] if is_grid(state[1]) else state[model.level_part]
    return state


def _as_map(model: Any, level: Feature, state: Any, tensor: Tensor, image: Tensor) -> Tensor | None:
    """A tensor in the form of a state's level as a map (1, C, h, w); None where it has no places."""
    if tensor.ndim == 3:
        grid = state[1] if isinstance(state, (tuple, list)) and is_grid(state[1]) else _grid(model, image)
        high, wide = grid or (side // level.reduction for side in image.shape[-2:])
        return to_map(tensor[:, -high * wide :], (high, wide)) if tensor.shape[1] >= high * wide else None
    if tensor.ndim == 4:
        return tensor.permute(0, 3, 1, 2) if model.channels_last else tensor
    return None


def _grid(model: Any, image: Tensor) -> tuple[int, int] | None:
    return model.grid_of(*image.shape[-2:]) if isinstance(model, TokenModel) else None


def _starts(length: int, window: int) -> list[int]:
    return sorted({*range(0, length - window, max(1, window // 2)), length - window})


def _enlarged(places: Tensor, image: Tensor) -> Tensor:
    """(1, h, w) -> (H, W)."""
    return F.interpolate(places[None].float(), image.shape[-2:], mode="bilinear")[0, 0].detach().cpu()
