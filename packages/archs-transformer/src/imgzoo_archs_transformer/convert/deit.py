"""DeiT weights of transformers, with the classifier of each token; the authors' have our names."""

from typing import Any

from imgzoo.errors import WeightsError
from imgzoo.loading.convert import Format, State

from .hugging import MARKER
from .vision_transformer import FORMATS as VIT
from .vision_transformer import HUGGING, from_hugging


def from_transformers(state: State, model: Any) -> State:
    if "head.weight" in state and "head_dist.weight" not in state and model.num_classes:
        raise WeightsError("these weights have one classifier for the two tokens of this network: give num_classes=0")
    return from_hugging(state, model)


FORMATS = [
    Format("transformers-vit", MARKER, HUGGING, from_transformers),
    *(each for each in VIT if each.name != "transformers-vit"),
]
