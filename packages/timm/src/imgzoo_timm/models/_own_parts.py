"""Networks that are made by name with blocks of a caller's own, which take the field's arguments."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

import imgzoo
from imgzoo.errors import OptionError
from imgzoo.options import parameters_of
from imgzoo_archs_cnn import resnet
from imgzoo_timm.layers._act import get_act_layer
from imgzoo_timm.layers._attention import DiffAttention
from imgzoo_timm.layers._norm_names import get_norm_layer

from ._classes import network_class
from ._families import Bridge
from ._vision_transformer import Block, ResPostBlock, VisionTransformer

BLOCKS = {"block": Block, "res_post": ResPostBlock}
KINDS = ("block_fn", "mlp_layer", "attn_layer", "embed_layer")


def is_own(part: Any) -> bool:
    """Whether an option is a class or function, perhaps in a `partial`, that is not of imgzoo."""
    return callable(part) and not getattr(part, "func", part).__module__.startswith("imgzoo")


def take_parts(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Take a caller's own parts of a vision transformer out of options, and let a ResNet understand its own block."""
    if ":" in name or not imgzoo.is_model(name):
        return {}
    native = imgzoo.get_spec(name).load()
    if native is resnet.ResNet and is_own(options.get("block")):
        block = Bridge(options["block"], options.pop("block_args", {}))
        options["block"] = block
    if not isinstance(native, type) or not issubclass(native, VisionTransformer.native_class):
        return {}
    if not issubclass(network_class(native), VisionTransformer):
        return {}
    return {key: options.pop(key) for key in KINDS if is_own(options.get(key))}


def give_parts(model: Any, own: dict[str, Any], loaded: bool) -> None:
    """Make the blocks, or the patch embedding, of a finished vision transformer anew with a caller's own parts.

    Weights that were `loaded` go into them.

    Raises:
        OptionError: what is left of the blocks has no class of its own.
    """
    spec = imgzoo.get_spec(model.name)
    defaults = {key: each.default for key, each in parameters_of(spec.load())[0].items()}
    made = {**defaults, **spec.kwargs, **model.model_args}
    if "mlp" not in made:
        raise OptionError(f"{model.name} has parts of its own, and none of {' or '.join(own)}: leave that out, and say "
                          "what its parts do by mlp_ratio, num_heads and act_layer")  # fmt: skip
    if "embed_layer" in own and type(model).make_patch_embed is not VisionTransformer.make_patch_embed:
        raise OptionError(f"{model.name} has patches of its backbone, and no other embed_layer: leave that out, or "
                          "take a network whose patches are of the image, as vit_small_patch16_224")  # fmt: skip
    if made["block"] not in BLOCKS or (made["mlp"] != "mlp" and "mlp_layer" not in own):
        raise OptionError(f"{model.name} has blocks whose parts are not replaced one by one: give block_fn={Block!r}, "
                          "or a class that derives from it, and mlp_layer, too")  # fmt: skip
    before = {name: getattr(model, name).state_dict() for name in ("blocks", "patch_embed")}
    act, norm = made["act"], made["norm"]
    if isinstance(norm, str):
        kind: Any = get_norm_layer(norm)
        norm = partial(kind, eps=made["eps"])
    of_patches = norm if made["embed_norm"] is True else made["embed_norm"]
    given = {**made, "patch_size": model.patch_size, "img_size": model.img_size, "init_values": made["layer_scale"],
             "block_fn": BLOCKS[made["block"]], "norm_layer": norm, "embed_norm_layer": of_patches,
             "act_layer": get_act_layer(act)}  # fmt: skip
    if made["diff_attn"]:
        own = {"attn_layer": DiffAttention, **own}
    first: nn.Parameter = next(model.parameters())
    with torch.device(first.device):
        model._own_parts(own, given)
    model.to(dtype=first.dtype)
    model.after_construction()
    for name, state in before.items() if loaded else ():
        getattr(model, name).load_state_dict(state)
