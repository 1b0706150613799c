"""First weights of vision transformers by the field's word, `weight_init`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import nn

import imgzoo
from imgzoo.errors import OptionError
from imgzoo_layers.init import trunc_normal_
from imgzoo_timm.layers._training import init_weight_jax

from ._manipulate import named_apply

DRAWN = {
    "deit", "naflexvit", "swin_transformer", "vision_transformer", "vision_transformer_hybrid",
    "vision_transformer_relpos", "vitamin",
}  # fmt: skip
"""Families that are drawn by each of the words."""
WORDS = ("", "jax", "jax_nlhb", "moco", "reset", "skip")
TIED = {"qkv": 3, "kv": 2}
"""Linear layers that are several in one, which MoCo v3 draws apart."""

BEGINNING = {
    **dict.fromkeys(("beit", "deepseek_vit", "efficientformer_v2", "efficientvim", "eva", "qwen3_vit",
                     "swin_transformer_v2", "tiny_vit", "vision_transformer"), "all"),
    **dict.fromkeys(("cait", "coat", "convit", "crossvit"), "norms"),
    **dict.fromkeys(("davit", "efficientformer", "fastvit", "lowformer", "volo", "xcit"), "linear"),
}  # fmt: skip
"""Families whose networks have `_init_weights` with truncated normal linear layers, and what else it draws."""
DEEP = {"beit", "eva", "hiera", "hieradet_sam2", "naflexvit", "vision_transformer_relpos"}
"""Families whose networks have `fix_init_weight`, beside the vision transformer."""


def begin(module: nn.Module, name: str = "", needs_reset: bool = True, drawn: str = "all") -> None:
    """A linear layer truncated normal of std 0.02, with a zero bias; other layers as torch makes them, layer norms
    alone, or as they are, by `drawn` of `BEGINNING`."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        return
    reset: Any = getattr(module, "reset_parameters", None)
    chosen = drawn == "all" or (drawn == "norms" and isinstance(module, nn.LayerNorm))
    if needs_reset and chosen and reset is not None:
        reset()


@torch.no_grad()
def shrink_by_depth(model: Any) -> None:
    """Divide the last layers of the attention and of the mlp of block `i` by `sqrt(2 (i + 1))`."""
    for i, block in enumerate(model.blocks):
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.div_((2.0 * (i + 1)) ** 0.5)


def checked(scheme: str) -> str:
    """The word, one of `WORDS`.

    Raises:
        OptionError: there is no such word.
    """
    if scheme not in WORDS:
        raise OptionError(f"weight_init is {', '.join(map(repr, WORDS))}, not {scheme!r}")
    return scheme


def take_scheme(name: str, options: dict[str, Any]) -> str:
    """Take the word out of the options of a network by name whose family is drawn by it."""
    known = ":" not in name and imgzoo.is_model(name) and imgzoo.get_spec(name).family in DRAWN
    return checked(options.pop("weight_init", "")) if known else ""


@torch.no_grad()
def draw(model: nn.Module, scheme: str) -> None:
    """Draw the weights of a finished network anew: "jax" as ViT began, "jax_nlhb" with a classifier that starts at the
    odds of one class in all, "moco" as MoCo v3, "reset" as torch's layers; "" and "skip" leave what they are."""
    chance = -math.log(max(1, getattr(model, "num_classes", 1)))
    visit: Any = {
        "jax": init_weight_jax,
        "jax_nlhb": partial(init_weight_jax, head_bias=chance),
        "moco": draw_moco,
        "reset": draw_plain,
    }.get(checked(scheme))
    if visit is not None:
        named_apply(visit, model)


def draw_moco(module: nn.Module, name: str) -> None:
    """Linear layers by Xavier, the parts of queries, keys and values each for itself; no bias (MoCo v3, 2104.02057)."""
    if isinstance(module, nn.Linear):
        several = TIED.get(name.rpartition(".")[2], 1)
        bound = math.sqrt(6 / (module.out_features / several + module.in_features))
        nn.init.uniform_(module.weight, -bound, bound)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def draw_plain(module: nn.Module, name: str) -> None:
    """Linear layers as torch makes them."""
    if isinstance(module, nn.Linear):
        module.reset_parameters()


SCALED = {"VisionTransformer": False, "NaFlexViT": True}
"""Networks that take `fix_init`, and whether their weights are drawn so anyway."""


@torch.no_grad()
def scale_by_depth(model: Any, fix_init: bool, loaded: bool = False) -> None:
    """Let the drawn weights of the last layers of block `i` be over `sqrt(2 (i + 1))`, or not; loaded ones stay."""
    drawn = next((SCALED[cls.__name__] for cls in type(model).__mro__ if cls.__name__ in SCALED), None)
    if drawn is None:
        name = getattr(model, "name", "") or type(model).__name__
        raise OptionError(f"{name} has no option 'fix_init': its weights are drawn one way")
    if loaded or fix_init == drawn:
        return
    for i, block in enumerate(model.blocks):
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.mul_((2.0 * (i + 1)) ** (-0.5 if fix_init else 0.5))
