"""NaFlexViT from weights of a ViT of images, in our names, JAX arrays, transformers' (SigLIP 2) or RADIO's."""

from math import isqrt
from typing import Any

from imgzoo.errors import WeightsError
from imgzoo.loading.convert import Format, State

from .vision_transformer import JAX, OF_RADIO, RADIO, TRANSFORMERS, from_jax, from_transformers, radio_parts


def to_patches(state: State, model: Any) -> State:
    """A first layer that is no convolution reads patches laid flat, and positions lie on a grid, none of them the class
    token's.

    What stood in a row for the class token is added to the token. Raises `WeightsError` for a grid that is not square.
    """
    moved = {key: f"embeds.{key}" for key in ("cls_token", "reg_token", "pos_embed")}
    state = {moved.get(key, key.replace("patch_embed.", "embeds.")): value for key, value in state.items()}
    kernel = state["embeds.proj.weight"]
    if kernel.ndim == 4 and model.embeds.proj.weight.ndim == 2:
        state["embeds.proj.weight"] = kernel.permute(0, 2, 3, 1).flatten(1)
    if "embeds.pos_embed" not in state:
        return state
    table = state["embeds.pos_embed"].flatten(0, -2)
    if isqrt(len(table)) ** 2 != len(table) and "embeds.cls_token" in state:
        state["embeds.cls_token"] = state["embeds.cls_token"] + table[:1]
        table = table[1:]
    side = isqrt(len(table))
    if side**2 != len(table):
        raise WeightsError(f"a table of {len(table)} positions is no square grid")
    state["embeds.pos_embed"] = table.reshape(1, side, side, -1)
    return state


def flat_jax(state: State, model: Any) -> State:
    return to_patches(from_jax(state, model), model)


def flat_transformers(state: State, model: Any) -> State:
    return to_patches(from_transformers(state, model), model)


def flat_radio(state: State, model: Any) -> State:
    return to_patches(radio_parts(state, model), model)


FORMATS = [
    Format("radio", OF_RADIO, RADIO, flat_radio),
    Format("jax", r"^(?:params/)?(?:img/)?Transformer/", JAX, flat_jax),
    Format("transformers", r"^(?:vision_model\.)?embeddings\.patch_embedding\.", TRANSFORMERS, flat_transformers),
    Format("vit", r"^patch_embed\.proj\.weight$", finish=to_patches),
]
