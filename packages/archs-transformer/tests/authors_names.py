"""Our weights in the names of each family's authors: every function takes a state dict and returns theirs."""

import re

import torch


def renamed(state, *table):
    """Apply every (pattern, replacement) in turn to every name; an empty name is left out."""
    result = {}
    for key, value in state.items():
        for pattern, replacement in table:
            key = re.sub(pattern, replacement, key)
        if key:
            result[key] = value.clone()
    return result


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


TEXT = {"logit_scale": torch.tensor(4.6), "text.ln_final.weight": torch.ones(8), "text_projection": torch.eye(8)}


def trunk(state):
    """open_clip: a network of ours below `visual.trunk`, and a projection without bias after it."""
    head = next(key.removesuffix(".weight") for key in state if re.fullmatch(r"head\.(?:fc\.)?weight", key))
    kept = renamed(state, (rf"^{head}\..*", ""))
    return TEXT | under("visual.trunk.", kept) | {"visual.head.proj.weight": state[f"{head}.weight"]}


# EVA

EVA_NAMES = [(r"\.q_proj\.bias", ".q_bias"), (r"\.v_proj\.bias", ".v_bias"), (r"attn\.norm\.", "attn.inner_attn_ln."),
             (r"mlp\.norm\.", "mlp.ffn_ln."), (r"fc1_g", "w1"), (r"fc1_x", "w2"), (r"mlp\.fc2", "mlp.w3")]  # fmt: skip
TURNS = {f"{path}rope.freqs_{part}": torch.zeros(16, 16) for path in ("", "blocks.0.attn.") for part in ("cos", "sin")}


def eva02(state):
    return renamed(state, *EVA_NAMES) | TURNS


def eva02_pretrained(state):
    pretraining = {"mask_token": torch.zeros(1, 1, 64), "lm_head.weight": torch.zeros(3, 64)}
    return renamed(eva02(state), (r"^head\..*", ""), (r"^fc_norm\.", "norm.")) | pretraining


def eva02_packed(state):
    """EVA-02 tiny and small, whose gate and value are one layer."""
    return renamed(state, (r"mlp\.fc1\.", "mlp.w12."), (r"mlp\.fc2\.", "mlp.w3.")) | TURNS


def eva_clip(state):
    return TEXT | under("visual.", eva02(state))


CLIP_NAMES = [(r"^blocks\.", "transformer.resblocks."), (r"\.norm([12])\.", r".ln_\1."),
              (r"\.gamma_(.)$", r".ls_\1.gamma"),
              (r"\.attn\.qkv\.", ".attn.in_proj_"), (r"attn\.proj\.", "attn.out_proj."), (r"mlp\.fc1\.", "mlp.c_fc."),
              (r"mlp\.fc2\.", "mlp.c_proj."), (r"^norm_pre\.", "ln_pre."), (r"^norm\.", "ln_post."),
              (r"^patch_embed\.proj\.", "conv1."), (r"^cls_token$", "class_embedding"),
              (r"^pos_embed$", "positional_embedding"), (r"^attn_pool\.latent$", "attn_pool.probe"),
              (r"^attn_pool\.proj\.", "attn_pool.attn.out_proj."), (r"^attn_pool\.norm\.", "attn_pool.layernorm."),
              (r"^head\.weight$", "proj"), (r"^head\.bias$", "")]  # fmt: skip


def perception_tower(state):
    theirs = renamed(state, *CLIP_NAMES)
    for leaf in ("weight", "bias") if "attn_pool.probe" in theirs else ():
        parts = [theirs.pop(f"attn_pool.{name}.{leaf}") for name in ("q", "kv")]
        theirs[f"attn_pool.attn.in_proj_{leaf}"] = torch.cat(parts)
    theirs["class_embedding"] = theirs["class_embedding"].flatten()
    theirs["positional_embedding"] = theirs["positional_embedding"][0]
    if "proj" in theirs:
        theirs["proj"] = theirs["proj"].T.contiguous()
    return theirs


def perception(state):
    text = {"transformer.resblocks.0.ln_1.weight": torch.ones(8), "positional_embedding": torch.zeros(7, 8)}
    return TEXT | text | under("visual.", perception_tower(state))


# DINOv3


def dinov3(state):
    """The keys' bias is in the file, and masked."""
    names = [("reg_token", "storage_tokens"), (r"gamma_(.)$", r"ls\1.gamma"), *EVA_NAMES[-3:]]
    theirs = renamed(state, *(names if any("fc1_g" in key for key in state) else names[:2]))
    for path in [key.removesuffix("q_bias") for key in theirs if key.endswith("q_bias")]:
        q, v = theirs.pop(f"{path}q_bias"), theirs.pop(f"{path}v_bias")
        theirs[f"{path}qkv.bias"] = torch.cat([q, torch.ones_like(q), v])
        theirs[f"{path}qkv.bias_mask"] = torch.cat([q, torch.full_like(q, torch.nan), v])
    return theirs | {"mask_token": torch.zeros(1, 64), "rope_embed.periods": torch.ones(4)}


def dinov3_transformers(state, layers="layer."):
    names = [("reg_token", "embeddings.register_tokens"), (r"gamma_(.)$", r"layer_scale\1.lambda1"),
             ("cls_token", "embeddings.cls_token"), (r"patch_embed\.proj", "embeddings.patch_embeddings"),
             (r"^blocks\.", layers), (r"\.attn\.proj", ".attention.o_proj"), (r"\.attn\.", ".attention."),
             (r"fc1_g", "gate_proj"), (r"fc1(?:_x)?\.", "up_proj."), ("fc2", "down_proj"),
             (r"\.([qv])_bias", r".\1_proj.bias")]  # fmt: skip
    theirs = renamed(state, *names)
    for path in [key.removesuffix("qkv.weight") for key in theirs if key.endswith("qkv.weight")]:
        parts = theirs.pop(f"{path}qkv.weight").chunk(3)
        theirs |= {f"{path}{name}_proj.weight": part for name, part in zip("qkv", parts, strict=True)}
    return theirs | {"embeddings.mask_token": torch.zeros(1, 1, 64)}


# SigLIP and CLIP of transformers, NaFlex

HUGGING = [
    (r"^blocks\.", "encoder.layers."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"(\d)\.attn\.proj", r"\1.self_attn.out_proj"),
    (r"(\d)\.attn\.", r"\1.self_attn."),
    (r"^norm\.", "post_layernorm."),
    (r"^norm_pre\.", "pre_layrnorm."),
    (r"^(?:patch_embed|embeds)\.proj\.", "embeddings.patch_embedding."),
    (r"^(?:embeds\.)?pos_embed$", "embeddings.position_embedding.weight"),
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^attn_pool\.latent$", "head.probe"),
    (r"^attn_pool\.proj\.", "head.attention.out_proj."),
    (r"^attn_pool\.norm\.", "head.layernorm."),
    (r"^attn_pool\.mlp\.", "head.mlp."),
    (r"^head\.bias$", ""),
]


def hugging(state):
    """SiglipModel, Siglip2Model and CLIPModel of transformers."""
    theirs = under("vision_model.", renamed({k: v for k, v in state.items() if k != "head.weight"}, *HUGGING))
    for path in [key.removesuffix("qkv.weight") for key in theirs if key.endswith("self_attn.qkv.weight")]:
        for leaf in ("weight", "bias"):
            parts = theirs.pop(f"{path}qkv.{leaf}").chunk(3)
            theirs |= {f"{path}{name}_proj.{leaf}": part for name, part in zip("qkv", parts, strict=True)}
    for leaf in ("weight", "bias") if "vision_model.head.probe" in theirs else ():
        parts = [theirs.pop(f"vision_model.attn_pool.{name}.{leaf}") for name in ("q", "kv")]
        theirs[f"vision_model.head.attention.in_proj_{leaf}"] = torch.cat(parts)
    table = theirs["vision_model.embeddings.position_embedding.weight"]
    theirs["vision_model.embeddings.position_embedding.weight"] = table.flatten(0, -2)
    if "vision_model.embeddings.class_embedding" in theirs:
        theirs["vision_model.embeddings.class_embedding"] = theirs["vision_model.embeddings.class_embedding"].flatten()
        theirs["visual_projection.weight"] = state["head.weight"]
    text = {"text_model.final_layer_norm.weight": torch.ones(8), "logit_bias": torch.ones(1)}
    return theirs | text | {"logit_scale": torch.tensor(4.6)}


def aim(state):
    return renamed(state, (r"^blocks", "trunk.blocks"), (r"\.norm([12])\.", r".norm_\1."), (r"fc1_g", "fc1"),
                   (r"fc1_x", "fc3"), (r"^patch_embed\.", "preprocessor.patchifier."),
                   (r"^pos_embed", "preprocessor.pos_embed"), (r"^norm\.", "trunk.post_trunk_norm."))  # fmt: skip


def beit(state):
    return state | {"blocks.0.attn.relative_position_index": torch.zeros(17, 17)}


def beit_pretrained(state):
    """Before fine-tuning: one table for all blocks, a norm where ours follows the pooling, what predicts patches."""
    table = "attn.relative_position_bias_table"
    kept = {key: value for key, value in state.items() if not key.startswith("head.") and table not in key}
    shared = {"rel_pos_bias.relative_position_bias_table": state[f"blocks.0.{table}"],
              "rel_pos_bias.relative_position_index": torch.zeros(17, 17)}  # fmt: skip
    heads = {"mask_token": torch.zeros(1, 1, 64), "lm_head.weight": torch.zeros(3, 64), "lm_head.bias": torch.zeros(3)}
    return renamed(kept, (r"^fc_norm\.", "norm.")) | shared | heads


def beit_v2_pretrained(state):
    """As BEiT, with two layers more that only the pretraining ran."""
    theirs = beit_pretrained(state)
    more = {f"cls_pt_layers.0.{key.split('.', 2)[2]}": value for key, value in theirs.items() if "blocks.0." in key}
    return theirs | more | {"cls_pt_lm_head.weight": torch.zeros(3, 64)}


def beit3(state):
    """microsoft/unilm: an expert of images (A) and one of text (B) for every layer."""
    theirs = renamed(
        state,
        (r"^blocks\.", "beit3.encoder.layers."),
        (r"\.norm1\.", ".self_attn_layer_norm.A."),
        (r"\.norm2\.", ".final_layer_norm.A."),
        (r"\.attn\.norm\.", ".self_attn.inner_attn_ln.A."),
        (r"\.attn\.proj\.", ".self_attn.out_proj.A."),
        (r"\.mlp\.norm\.", ".ffn.A.ffn_layernorm."),
        (r"\.mlp\.", ".ffn.A."),
        (r"^patch_embed\.", "beit3.vision_embed."),
        (r"^cls_token", "beit3.vision_embed.cls_token"),
        (r"^pos_embed", "beit3.encoder.embed_positions.A.weight"),
    )
    positions = theirs["beit3.encoder.embed_positions.A.weight"]
    theirs["beit3.encoder.embed_positions.A.weight"] = torch.cat([torch.ones(2, 64), positions[0]])
    for key in [key for key in theirs if ".attn.qkv." in key]:
        parts = theirs.pop(key).chunk(3)
        theirs |= {key.replace(".attn.qkv.", f".self_attn.{name}_proj.A."): part
                   for name, part in zip("qkv", parts, strict=True)}  # fmt: skip
    return theirs | {key.replace(".A.", ".B."): value for key, value in theirs.items() if ".A." in key} | {
        "beit3.text_embed.weight": torch.ones(2, 2), "beit3.vision_embed.mask_token": torch.ones(1, 1, 64)}  # fmt: skip


def vit_of_naflex(state):
    """The same network for images: a convolution, and a row for the class token where there is one."""
    theirs = renamed(state, (r"^embeds\.proj", "patch_embed.proj"), (r"^embeds\.", ""))
    theirs["pos_embed"] = theirs["pos_embed"].flatten(1, 2)
    theirs["patch_embed.proj.weight"] = theirs["patch_embed.proj.weight"].unflatten(1, (16, 16, 3)).permute(0, 3, 1, 2)
    if "cls_token" in theirs:
        row = torch.ones(1, 1, 64)
        theirs["cls_token"] = theirs["cls_token"] - row
        theirs["pos_embed"] = torch.cat([row, theirs["pos_embed"]], dim=1)
    return theirs


# SAM, Swin V2, LeViT, MLP-Mixer, ResMLP


def sam_encoder(state):
    return renamed(state, (r"mlp\.fc(\d)", r"mlp.lin\1"))


def sam(state):
    other = {
        "prompt_encoder.not_a_point_embed.weight": torch.ones(1, 8),
        "mask_decoder.iou_token.weight": torch.ones(8),
    }
    return under("image_encoder.", sam_encoder(state)) | other


def swin_v2(state):
    theirs = {re.sub(r"^layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", key): value
              for key, value in state.items()}  # fmt: skip
    tables = {"relative_coords_table": torch.zeros(1, 7, 7, 2), "relative_position_index": torch.zeros(16, 16)}
    stored = under("layers.0.blocks.0.attn.", tables) | {"layers.1.blocks.1.attn_mask": torch.zeros(4, 16, 16)}
    return renamed(theirs, (r"head\.fc", "head")) | stored


LEVIT = {"stages.0.blocks.0.attn": "blocks.0.m", "stages.0.blocks.0.mlp": "blocks.1.m",
         "stages.0.blocks.1.attn": "blocks.2.m", "stages.0.blocks.1.mlp": "blocks.3.m",
         "stages.1.downsample.attn_downsample": "blocks.4", "stages.1.downsample.mlp": "blocks.5.m",
         "stages.1.blocks.0.attn": "blocks.6.m", "stages.1.blocks.0.mlp": "blocks.7.m"}  # fmt: skip


def levit(state):
    stem = [(rf"^stem\.conv{i}", f"patch_embed.{2 * i - 2}") for i in range(1, 5)]
    theirs = renamed(state, *stem, *((f"^{re.escape(ours)}", theirs) for ours, theirs in LEVIT.items()),
                     (r"(proj|q)\.ln\.", r"\1.1."), (r"\.ln1\.", ".0."), (r"\.ln2\.", ".2."),
                     (r"^(head|head_dist)\.linear\.", r"\1.l."), (r"\.linear\.", ".c."))  # fmt: skip
    flat = {key: value.flatten(1) if "blocks" in key and value.ndim == 4 else value for key, value in theirs.items()}
    return flat | {f"blocks.{i}.{path}attention_bias_idxs": torch.zeros(4, 4) for i, path in ((0, "m."), (4, ""))}


def mixer(state):
    """google-research/vision_transformer's Mixer, in JAX's layout."""
    names = [(r"^stem\.proj\.", "stem/"), (r"^blocks\.(\d+)\.", r"MixerBlock_\1/"), (r"norm1\.", "LayerNorm_0/"),
             (r"norm2\.", "LayerNorm_1/"), (r"mlp_(token|channel)s\.", r"\1_mixing/"), (r"fc1\.", "Dense_0/"),
             (r"fc2\.", "Dense_1/"), (r"^norm\.", "pre_head_layer_norm/"), (r"^head\.", "head/"),
             (r"(orm(?:_\d)?)/weight", r"\1/scale"), (r"weight$", "kernel")]  # fmt: skip
    theirs = renamed(state, *names)
    for key, value in theirs.items():
        if key.endswith("kernel"):
            theirs[key] = value.permute(2, 3, 1, 0) if value.ndim == 4 else value.T
    return theirs


def resmlp(state):
    names = [
        (r"^stem\.", "patch_embed."),
        (r"linear_tokens", "attn"),
        (r"mlp_channels", "mlp"),
        (r"ls(\d)$", r"gamma_\1"),
    ]
    theirs = renamed(state, *names)
    return {key: value.flatten() if key.endswith(("alpha", "beta")) else value for key, value in theirs.items()}


# FastViT


FAST_NAMES = [
    (r"^stem\.", "patch_embed."),
    (r"^final_conv\.", "conv_exp."),
    (r"exp\.se\.fc1", "exp.se.reduce"),
    (r"exp\.se\.fc2", "exp.se.expand"),
    (r"conv_kxk", "rbr_conv"),
    (r"conv_scale", "rbr_scale"),
    (r"identity", "rbr_skip"),
    (r"large_conv", "lkb_origin"),
    (r"proj\.0\.reparam_conv", "proj.0.lkb_reparam"),
    (r"\.mlp\.", ".convffn."),
    (r"pos_enc\.", "pe."),
    (r"\.gamma$", ""),
    (r"^head\.fc\.", "head."),
]


def fastvit(state):
    parts = {found[0] for key in state if (found := re.match(r"stages\.\d+\.\w+\.", key))}
    order = ("downsample", "pos_emb", "blocks")
    parts = sorted(parts, key=lambda part: (part.split(".")[1], order.index(part.split(".")[2])))
    places = [(f"^{re.escape(part)}", f"network.{i}.") for i, part in enumerate(parts)]
    return renamed(state, *places, *FAST_NAMES)


def mobileclip(state):
    theirs = fastvit(state)
    del theirs["head.bias"]
    theirs["head.proj"] = theirs.pop("head.weight").T
    return under("image_encoder.model.", theirs) | {"text_encoder.final_layer_norm.weight": torch.ones(8)}


def xcit(state):
    theirs = renamed(state, (r"^pos_embed\.", "pos_embeder."))
    for path in {key.split("attn.q.")[0] for key in theirs if ".attn.q." in key}:
        for leaf in ("weight", "bias"):
            theirs[f"{path}attn.qkv.{leaf}"] = torch.cat([theirs.pop(f"{path}attn.{name}.{leaf}") for name in "qkv"])
    return theirs


CSAT = (2, 2, 3)
"""Where the change of size stands in their first three stages."""


def csatv2(state):
    """Of one block in each of the first two stages, two in the third."""

    def place(found):
        stage, index = int(found[1]), int(found[2])
        return (
            f"stages{stage}.{CSAT[stage - 1]}." if stage and not index else f"stages{stage + 1}.{index - (stage > 0)}."
        )

    theirs = {re.sub(r"^stages\.(\d)\.(\d+)\.", place, key): value for key, value in state.items()}
    theirs = renamed(
        theirs, (r"conv_(y|cb|cr)\.", lambda found: f"{found[1].title()}_Conv."), (r"^stem_dct", "dct"),
        (r"grn\.weight", "grn.gamma"), (r"grn\.bias", "grn.beta"), (r"norm1\.", "attn_norm."),
        (r"norm2\.", "ff_norm."), (r"mlp\.fc1", "ff.net.0"), (r"mlp\.fc2", "ff.net.3"),
        (r"(\d|attn\.attn)\.pos_embed", r"\1.attn.pos_embed"), (r"\.attn\.attn\.qkv", ".attn.attn.attn.qkv"),
        (r"\.qkv", ".to_qkv"), (r"attn\.proj", "attn.to_out.0"), (r"\.attn\.attn\.", ".attention.attention."),
        (r"\.attn\.conv", ".attention.conv"), (r"^head\.fc\.", "head."), (r"^head\.norm", "norm"),
    )  # fmt: skip
    return {key: value[None, None, None] if ".grn." in key else value for key, value in theirs.items()}


# Vision towers of language models


LANGUAGE = {"model.language_model.embed_tokens.weight": torch.ones(2, 2), "lm_head.weight": torch.ones(2, 2)}


def qwen_tower(state):
    """Two frames share the kernel; every layer of the deep stack has a merger of its own."""
    theirs = renamed(
        state, (r"^encoder\.", ""), (r"^pos_embed$", "pos_embed.weight"), (r"(mlp|merger)\.fc", r"\1.linear_fc")
    )
    theirs["pos_embed.weight"] = theirs["pos_embed.weight"][0]
    kernel = theirs["patch_embed.proj.weight"]
    theirs["patch_embed.proj.weight"] = torch.stack([kernel - 1, torch.ones_like(kernel)], dim=2)
    theirs.setdefault("merger.linear_fc1.weight", torch.ones(2, 2))
    return theirs | {"deepstack_merger_list.0.norm.weight": torch.ones(2)}


def qwen(state):
    return LANGUAGE | under("model.visual.", qwen_tower(state))


def gemma_tower(state):
    norms = ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]
    places = [(rf"\.norm{i}\.", f".{norm}.") for i, norm in enumerate(norms, start=1)]
    theirs = renamed(state, (r"^encoder\.", ""), *places, (r"^patch_embed\.", "patch_embedder."),
                     (r"^blocks\.", "encoder.layers."), (r"\.attn\.", ".self_attn."))  # fmt: skip
    kernel = theirs["patch_embedder.input_proj.weight"].unflatten(1, (3, 16, 16))
    return theirs | {"patch_embedder.input_proj.weight": kernel.permute(0, 2, 3, 1).flatten(1)}


def gemma(state):
    return LANGUAGE | under("model.vision_tower.", gemma_tower(state))


def deepseek(state):
    theirs = renamed(state, (r"^encoder\.", ""), (r"attn\.qkv", "attn.wqkv"), (r"attn\.proj", "attn.wo"),
                     (r"mlp\.fc", "mlp.w"), (r"aligner\.fc", "aligner.w"), (r"^(?!aligner)", "vision."))  # fmt: skip
    theirs["vision.patch_embed.proj.weight"] = theirs["vision.patch_embed.proj.weight"].flatten(1)
    theirs.setdefault("aligner.w1.weight", torch.ones(2, 2))
    return theirs | {"layers.0.attn.wq.weight": torch.ones(2, 2), "embed.weight": torch.ones(2, 2)}
