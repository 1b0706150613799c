"""Early weights of the reconstructed Swin V2: temperatures in place of logarithms of scales, one flat classifier."""

from typing import Any

from imgzoo.loading.convert import Format, State

RULES = [(r"^head\.(weight|bias)$", r"head.fc.\1")]


def scales(state: State, model: Any) -> State:
    """`tau` -> `logit_scale`, the logarithm of what it divides by."""
    return {
        key.replace(".tau", ".logit_scale"): -value.flatten().log() if key.endswith(".attn.tau") else value
        for key, value in state.items()
    }


FORMATS = [Format("early", r"\.attn\.tau$", RULES, scales)]
