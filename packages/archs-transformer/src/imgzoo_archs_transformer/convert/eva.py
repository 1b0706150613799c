"""EVA, EVA-02 and EVA-CLIP, Perception Encoder and DINOv3 in their authors' names, DINOv3 in transformers' too."""

from typing import Any

from imgzoo.errors import WeightsError
from imgzoo.loading.convert import Format, State

from .vision_transformer import CLIP, NAFLEX, VISUAL, from_clip, join, split_pool

EVA = [
    (r"^(?:mask_token$|lm_head\.).*", ""),  # of the pretraining
    (r"^(?:.*\.)?rope\.freqs_(?:cos|sin)$", ""),
    (r"\.inner_attn_ln\.", ".norm."),
    (r"\.ffn_ln\.", ".norm."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
]
PERCEPTION = [
    *CLIP,
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    (r"^attn_pool\.probe$", "attn_pool.latent"),
    (r"^attn_pool\.attn\.", "attn_pool."),
    (r"^attn_pool\.layernorm\.", "attn_pool.norm."),
]
DINOV3 = [
    (r"^backbone\.", ""),
    (r"^(?:mask_token$|rope_embed\.periods$|local_cls_norm\.|dino_head\.|ibot_head\.).*", ""),
    (r".*\.bias_mask$", ""),
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    *EVA,
]
TRANSFORMERS = [
    (r"^embeddings\.mask_token$", ""),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"^(?:model\.)?layer\.", "blocks."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.([qv])_proj\.bias$", r".attn.\1_bias"),
    (r"\.attention\.", ".attn."),
    (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
    (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
]


def from_eva(state: State, model: Any) -> State:
    """Biases go to the layers that we have; the last norm of a pretrained network follows the pooling here."""
    own, named = model.state_dict(), {}
    for key, value in state.items():
        apart = key.replace(".q_bias", ".q_proj.bias").replace(".v_bias", ".v_proj.bias")
        pooled = f"fc_{key}" if key.startswith("norm.") else key
        named[next((each for each in (key, apart, pooled) if each in own), key)] = value
    return named


def from_perception(state: State, model: Any) -> State:
    """CLIP's layout, with attention pooling in it."""
    split_pool(state)
    return from_clip(state, model)


def from_dinov3(state: State, model: Any) -> State:
    """The keys' bias was masked in training; those of queries and values stand alone, where the model has them."""
    own = model.state_dict()
    for key in [key for key in state if key.endswith(".qkv.bias") and key not in own]:
        path = key.removesuffix("qkv.bias")
        q, _, v = state.pop(key).chunk(3)
        state |= {f"{path}q_bias": q, f"{path}v_bias": v}
    lost = [key for key in state if key.endswith((".q_bias", ".v_bias")) and key not in own]
    if any(state[key].any() for key in lost):
        raise WeightsError("these weights have a bias on queries and values, for which the names in '_dinov3_qkvb' are")
    return {key: value for key, value in state.items() if key not in lost}


def from_transformers(state: State, model: Any) -> State:
    """A layer each for query, key and value becomes one; of the two of a gated MLP, the one without gate is `fc1_x`."""
    join(state, "attn", {"qkv": ("q_proj", "k_proj", "v_proj")})
    gated = any(".fc1_g." in key for key in state)
    widened = "fc1_x" if gated else "fc1"
    return from_dinov3({key.replace(".up_proj.", f".{widened}."): value for key, value in state.items()}, model)


FORMATS = [
    NAFLEX,
    Format("perception", r"^visual\.conv1\.", [*VISUAL, *PERCEPTION], from_perception),
    Format("perception-tower", r"^conv1\.", PERCEPTION, from_perception),
    Format("eva-clip", r"^visual\.blocks\.", [*VISUAL, *EVA], from_eva),
    Format("dinov3", r"^(?:backbone\.)?(?:storage_tokens|rope_embed\.periods)$", DINOV3, from_dinov3),
    Format("dinov3-transformers", r"^embeddings\.patch_embeddings\.", TRANSFORMERS, from_transformers),
    Format("eva", r"^mask_token$|rope\.freqs_cos$|\.inner_attn_ln\.|\.mlp\.w12?\.|^lm_head\.", EVA, from_eva),
]
