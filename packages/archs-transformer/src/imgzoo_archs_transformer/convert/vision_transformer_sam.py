"""SAM's image encoder out of the checkpoint of the whole model: prompts and masks stay behind."""

from imgzoo.loading.convert import Format

RULES = [(r"\.mlp\.lin([12])\.", r".mlp.fc\1.")]
WHOLE = [(r"^(?!image_encoder\.).*", ""), (r"^image_encoder\.", ""), *RULES]
FORMATS = [Format("original", r"^image_encoder\.", WHOLE), Format("original-encoder", r"\.mlp\.lin1\.", RULES)]
