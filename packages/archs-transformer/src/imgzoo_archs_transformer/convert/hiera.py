"""Hiera weights of the original repository, fine-tuned or with the decoder of their pretraining."""

from imgzoo.loading.convert import Format

RULES = [
    (r"^(?:decoder_.*|mask_token$|multi_scale_fusion_heads\..*)", ""),
    (r"^(?:encoder_)?norm\.", "head.norm."),
    (r"^head\.projection\.", "head.fc."),
]
FORMATS = [Format("original", r"^head\.projection\.|^(?:encoder_)?norm\.", RULES)]
