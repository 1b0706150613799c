"""ViT weights as published: JAX arrays, torchvision, CLIP, AIM, BEiT-3, DINO, MAE, DeiT-III, RADIO; transformers' names
of ViT, DINOv2, CLIP and SigLIP."""

from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from imgzoo import get_spec, is_model
from imgzoo.errors import WeightsError
from imgzoo.loading.convert import Format, State, project

from .hugging import MARKER, NAMES

JAX = [
    (r"^(?:params/)?(?:txt/.*|[tb]$)", ""),
    (r"^(?:params/)?(?:img/)?", ""),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"^Transformer/encoderblock/", "blocks.all."),
    (r"^Transformer/encoder_norm/", "norm."),
    (r"^(?:Transformer/posembed_input/)?pos_embedding$", "pos_embed"),
    (r"^cls$", "cls_token"),
    (r"^embedding/", "patch_embed.proj."),
    (r"^(head|pre_logits)/", r"\1."),
    (r"^MAPHead_0/probe$", "attn_pool.latent"),
    (r"^MAPHead_0/LayerNorm_0/", "attn_pool.norm."),
    (r"^MAPHead_0/(?:MultiHeadDotProductAttention_0/)?", "attn_pool."),
    (r"MultiHeadDotProductAttention_\d/", "attn."),
    (r"MlpBlock_\d/Dense_0/", "mlp.fc1."),
    (r"MlpBlock_\d/Dense_1/", "mlp.fc2."),
    (r"LayerNorm_0/", "norm1."),
    (r"LayerNorm_[12]/", "norm2."),
    (r"(query|key|value)/", r"\1."),
    (r"\.out/", ".proj."),
    (r"scale$", "weight"),
]
VISUAL = [(r"^(?!visual\.).*", ""), (r"^visual\.", "")]
CLIP = [
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^conv1\.", "patch_embed.proj."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^proj$", "head.weight"),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.ls_([12])\.", r".ls\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
]
TRANSFORMERS = [
    (r"^(?:text_model\.|text_projection\.|logit_scale$|logit_bias$).*", ""),
    (r"^vision_model\.", ""),
    (r"^embeddings\.position_ids$", ""),
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.in_proj_", "attn_pool.qkv."),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
    (r"^visual_projection\.", "head."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.", ".attn."),
]
HUGGING = [
    *NAMES,
    (r"^pooler\.dense\..*", ""),  # no classifier reads it
    (r"^layernorm\.", "norm."),
    (r"^(?:cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.(?:weights_out|down_proj)\.", ".mlp.fc2."),
]
TORCHVISION = [
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_", "blocks."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
    (r"^heads\.head\.", "head."),
]
AIM = [
    (r"^preprocessor\.patchifier\.", "patch_embed."),
    (r"^preprocessor\.", ""),
    (r"^trunk\.post_trunk_norm\.", "norm."),
    (r"^trunk\.", ""),
    (r"\.norm_([12])\.", r".norm\1."),
    (r"\.mlp\.fc1\.", ".mlp.fc1_g."),
    (r"\.mlp\.fc3\.", ".mlp.fc1_x."),
]
BEIT3 = [
    (r"^beit3\.(?:text_embed\.|vision_embed\.mask_token$).*", ""),
    (r".*\.B\..*", ""),  # the experts of text
    (r"\.A\.", "."),
    (r"^beit3\.vision_embed\.proj\.", "patch_embed.proj."),
    (r"^beit3\.vision_embed\.cls_token$", "cls_token"),
    (r"^beit3\.encoder\.embed_positions\.weight$", "pos_embed"),
    (r"^beit3\.encoder\.layers\.", "blocks."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.final_layer_norm\.", ".norm2."),
    (r"\.self_attn\.inner_attn_ln\.", ".attn.norm."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.", ".attn."),
    (r"\.ffn\.ffn_layernorm\.", ".mlp.norm."),
    (r"\.ffn\.", ".mlp."),
]
DINO = [
    (r"^backbone\.", ""),
    (r"^(?:dino_head|ibot_head|head\.mlp|head\.last_layer)\..*", ""),  # projections of a training checkpoint
    (r"^mask_token$", ""),
    (r"^register_tokens$", "reg_token"),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
]
MAE = [(r"^(?:decoder_.*|mask_token$)", "")]
DEIT3 = [(r"\.gamma_([12])$", r".ls\1.gamma")]


def from_kernel(key: str, value: Tensor) -> tuple[str, Tensor]:
    """Kernels come input first and heads apart: (in, out), (in, heads, width), (heads, width, out), (h, w, in, out)."""
    path, _, leaf = key.rpartition(".")
    attended = path.endswith((".query", ".key", ".value"))
    if leaf != "kernel":
        return key, value.flatten() if attended else value
    if value.ndim == 4:
        return f"{path}.weight", value.permute(3, 2, 0, 1).contiguous()
    return f"{path}.weight", (value.flatten(1) if attended else value.flatten(0, -2)).T.contiguous()


def from_jax(state: State, model: Any) -> State:
    """Blocks one by one, torch's layout, and projections joined as ours are."""
    torch_state = dict(from_kernel(key, value) for key, value in unstack(state).items())
    join(torch_state, "attn", {"qkv": ("query", "key", "value")})
    join(torch_state, "attn_pool", {"q": ("query",), "kv": ("key", "value")})
    drop = ["attn_pool."] if model.attn_pool is None else []
    if any(key.startswith("pre_logits.") for key in torch_state):  # the classifier read a hidden layer we do not have
        drop += ["pre_logits.", "head."]
    return {key: value for key, value in torch_state.items() if not key.startswith(tuple(drop))}


def unstack(state: State) -> State:
    """Blocks that were scanned over share one array, the layer first: one entry for each block."""
    single: State = {}
    for key, value in state.items():
        if not key.startswith("blocks.all."):
            single[key] = value
            continue
        for i, layer in enumerate(value):
            single[key.replace(".all.", f".{i}.", 1)] = layer
    return single


def join(state: State, owner: str, joined: dict[str, tuple[str, ...]]) -> None:
    """Stack the projections of every `owner` into the layers that we have, in place; the first has to be there."""
    first = f"{next(iter(joined.values()))[0]}.weight"
    paths = [key.removesuffix(first) for key in state if key.endswith(f"{owner}.{first}")]
    for path in paths:
        for name, parts in joined.items():
            for leaf in ("weight", "bias"):
                if f"{path}{parts[0]}.{leaf}" in state:
                    state[f"{path}{name}.{leaf}"] = torch.cat([state.pop(f"{path}{part}.{leaf}") for part in parts])


def from_clip(state: State, model: Any) -> State:
    """Tokens gain a batch dimension; the projection (dim, out) is our classifier, which has a bias."""
    if "cls_token" in state:
        state["cls_token"] = state["cls_token"].reshape(1, 1, -1)
    state["pos_embed"] = state["pos_embed"].unsqueeze(0)
    if "head.weight" in state:
        state["head.weight"] = state["head.weight"].T.contiguous()
    return project(state, model)


def split_pool(state: State) -> None:
    """The query of attention pooling has a layer of its own here, in place."""
    for leaf in ("weight", "bias"):
        if f"attn_pool.qkv.{leaf}" in state:
            q, k, v = state.pop(f"attn_pool.qkv.{leaf}").chunk(3)
            state |= {f"attn_pool.q.{leaf}": q, f"attn_pool.kv.{leaf}": torch.cat([k, v])}


def from_transformers(state: State, model: Any) -> State:
    """A layer each for query, key and value becomes one; a network that pools otherwise needs no attention pooling."""
    join(state, "attn", {"qkv": ("q_proj", "k_proj", "v_proj")})
    split_pool(state)
    if "cls_token" in state:
        state["cls_token"] = state["cls_token"].reshape(1, 1, -1)
    state["pos_embed"] = state["pos_embed"].unsqueeze(0)
    kept = {key: value for key, value in state.items() if model.attn_pool is not None or "attn_pool." not in key}
    return project(kept, model)


def from_beit3(state: State, model: Any) -> State:
    """Two positions come before those of the image."""
    join(state, "attn", {"qkv": ("q_proj", "k_proj", "v_proj")})
    state["pos_embed"] = state["pos_embed"][2:].unsqueeze(0)
    return state


def from_dino(state: State, model: Any) -> State:
    """Where our table has no row for the class token, the token takes what was added to it."""
    table = state.get("pos_embed")
    if model.no_embed_class and table is not None and int((table.shape[1] - 1) ** 0.5) ** 2 == table.shape[1] - 1:
        state["cls_token"] = state["cls_token"] + table[:, :1]
        state["pos_embed"] = table[:, 1:].contiguous()
    return state


def from_hugging(state: State, model: Any) -> State:
    """Query, key and value become one layer, gate and value too; DINOv2's classifier reads two things, ours one.

    Raises `WeightsError` for such a classifier where the network would have one of as many classes.
    """
    join(state, "attn", {"qkv": ("q_proj", "k_proj", "v_proj")})
    join(state, "mlp", {"fc1": ("gate_proj", "up_proj")})
    if "head.weight" in state and state["head.weight"].shape[1] == 2 * model.embed_dim:
        if len(state["head.weight"]) == model.num_classes:
            raise WeightsError("the classifier of these weights reads the class token and the mean of the patches, "
                               "which none of this network does: give num_classes=0")  # fmt: skip
        state = {key: value for key, value in state.items() if not key.startswith("head.")}
    return from_dino(state, model)


def from_patches(state: State, model: Any) -> State:
    """Kernels laid flat for patches (D, p * p * C) as those of a convolution, and no position of the tokens before."""
    kernel, (down, across) = state["patch_embed.proj.weight"], model.patch_size
    state["patch_embed.proj.weight"] = kernel.unflatten(1, (down, across, -1)).permute(0, 3, 1, 2).contiguous()
    if "pos_embed" in state:
        table = state["pos_embed"].flatten(1, -2)
        prefix = 0 if model.no_embed_class else model.num_prefix_tokens
        state["pos_embed"] = torch.cat([table.new_zeros(1, prefix, table.shape[2]), table], dim=1)
    return state


RADIO = [
    (r"^(?:radio_model\.)?(?:input_conditioner\.|summary_idxs$).*", ""),
    (r"^(?:radio_model\.)?model\.", ""),
    (r"^patch_generator\.embedder\.", "patch_embed.proj."),
    (r"^patch_generator\.cls_token\.token$", "cls_token"),
    (r"^patch_generator\.pos_embed$", "pos_embed"),
    (r"\.grandma$", ".gamma"),
]
OF_RADIO = r"(?:^|\.)patch_generator\.embedder\.weight$"


def radio_parts(state: State, model: Any) -> State:
    """The first token is the class token; kernels (D, C * p * p) have no bias; positions are a square (1, h, w, D)."""
    tokens, kernel, table = state["cls_token"], state["patch_embed.proj.weight"], state["pos_embed"]
    state["cls_token"], state["reg_token"] = tokens[None, :1], tokens[None, 1:]
    state["patch_embed.proj.weight"] = kernel.unflatten(1, (-1, *model.patch_size))
    state.setdefault("patch_embed.proj.bias", kernel.new_zeros(len(kernel)))
    side = isqrt(table.shape[1])
    state["pos_embed"] = table.reshape(1, side, side, -1)
    return state


def from_radio(state: State, model: Any) -> State:
    """Positions of the model's grid are cut out of a square around it, which has its corners on those of the table
    where the same network over patches of any grid says so."""
    state = radio_parts(state, model)
    twin = f"naflex{model.name}"
    corners = is_model(twin) and bool(get_spec(twin).kwargs.get("pos_align_corners"))
    down, across = model.grid
    square, table = (max(model.grid),) * 2, state["pos_embed"].permute(0, 3, 1, 2).float()
    table = F.interpolate(table, square, mode="bilinear", align_corners=corners)[:, :, :down, :across]
    state["pos_embed"] = table.flatten(2).transpose(1, 2)
    return state


NAFLEX = Format("naflex", r"^embeds\.proj\.weight$", [(r"^embeds\.proj\.", "patch_embed.proj."), (r"^embeds\.", "")],
                from_patches)  # fmt: skip
"""A ViT or EVA that the field made with `use_naflex`."""

FORMATS = [
    NAFLEX,
    Format("radio", OF_RADIO, RADIO, from_radio),
    Format("jax", r"^(?:params/)?(?:img/)?Transformer/", JAX, from_jax),
    Format("clip", r"^visual\.class_embedding$", [*VISUAL, *CLIP], from_clip),
    Format("transformers", r"^(?:vision_model\.)?embeddings\.patch_embedding\.", TRANSFORMERS, from_transformers),
    Format("transformers-vit", MARKER, HUGGING, from_hugging),
    Format("torchvision", r"^encoder\.layers\.encoder_layer_", TORCHVISION),
    Format("aim", r"^preprocessor\.patchifier\.", AIM),
    Format("beit3", r"^beit3\.vision_embed\.proj\.", BEIT3, from_beit3),
    Format("mae", r"^decoder_", MAE),
    Format("deit3", r"\.gamma_1$", DEIT3),
    Format("dino", r"^backbone\.|^mask_token$|^register_tokens$|\.mlp\.w12\.|^head\.last_layer\.", DINO, from_dino),
]
