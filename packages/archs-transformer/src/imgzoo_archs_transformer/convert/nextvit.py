"""Next-ViT weights of the original repository: its blocks stand in one row, without stages."""

import re
from typing import Any

from imgzoo.loading.convert import Format, State

RULES = [
    (r"\.mlp\.conv([12])\.", r".mlp.fc\1."),
    (r"^proj_head\.0\.", "head.fc."),
]


def staged(state: State, model: Any) -> State:
    """`features.3` -> `stages.1.blocks.0`, by the model's depths."""
    places = [f"stages.{i}.blocks.{j}" for i, stage in enumerate(model.stages) for j in range(len(stage.blocks))]

    def place(found: re.Match[str]) -> str:
        number = int(found[1])
        return places[number] if number < len(places) else found[0]

    return {re.sub(r"^features\.(\d+)(?=\.)", place, key): value for key, value in state.items()}


FORMATS = [Format("original", r"^features\.0\.patch_embed\.|^proj_head\.0\.", RULES, staged)]
