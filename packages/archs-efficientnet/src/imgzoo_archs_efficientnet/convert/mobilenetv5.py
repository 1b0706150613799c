"""The vision encoder out of the weights of Gemma 3n."""

from imgzoo.loading.convert import Format

TOWER = r"^model\.vision_tower\.timm_model\."
RULES = [(rf"(?!{TOWER})^.*", ""), (TOWER, "")]
FORMATS = [Format("gemma3n", TOWER, RULES)]
