"""What transformers' ViT, DeiT, DINOv2, BEiT and Swin have in common: BERT's names for the parts of a block."""

EMBEDDINGS = [
    (r"^(?:vit|deit|beit|swin|swinv2|dinov2|dinov2_with_registers)\.", ""),
    (r"^embeddings\.mask_token$", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
]
BLOCK = [
    (r"\.attention\.(?:attention|self)\.", ".attention."),
    (r"\.attention\.([qkv])(?:uery|ey|alue)\.", r".attn.\1_proj."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.(?:relative_position_bias\.)?", ".attn."),
    (r".*\.relative_(?:position_index|coords_table)$", ""),
    (r"\.continuous_position_bias_mlp\.", ".cpb_mlp."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
]
FLAT = [(r"^(?:encoder\.)?layers?\.", "blocks.")]
NAMES = [*EMBEDDINGS, *FLAT, *BLOCK]
MARKER = r"^(?:\w+\.)?embeddings\.patch_embeddings\.projection\."
