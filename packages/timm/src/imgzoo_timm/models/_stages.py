"""Stages whose blocks are checkpointed stage by stage, as clients ask for by `stage.grad_checkpointing`."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from imgzoo.model import Checkpointed, swap_in, swap_out
from imgzoo_archs_cnn import vovnet
from imgzoo_archs_transformer import (
    efficientvim,
    fastvit,
    gcvit,
    maxxvit,
    metaformer,
    mvitv2,
    nextvit,
    pvt_v2,
    swin_transformer_v2_cr,
    tiny_vit,
)
from imgzoo_layers import stage
from imgzoo_timm.layers._base import ADAPTERS


class Checkpointing:
    """In front of a stage of blocks."""

    __jit_unused_properties__: ClassVar[list[str]] = ["grad_checkpointing"]

    @property
    def grad_checkpointing(self: Any) -> bool:
        return any(isinstance(block, Checkpointed) for block in self.blocks)

    @grad_checkpointing.setter
    def grad_checkpointing(self: Any, enable: bool) -> None:
        for block in self.blocks:
            (swap_in if enable else swap_out)(block, Checkpointed)


STAGES: dict[str, type[nn.Module]] = {
    "Stage": stage.Stage, "MapStage": swin_transformer_v2_cr.MapStage, "AttentionStage": tiny_vit.AttentionStage,
    "EfficientVimStage": efficientvim.Stage, "FastVitStage": fastvit.Stage, "GlobalContextVitStage": gcvit.Stage,
    "MaxxVitStage": maxxvit.Stage, "MetaFormerStage": metaformer.Stage, "MultiScaleVitStage": mvitv2.Stage,
    "NextStage": nextvit.Stage, "PyramidVisionTransformerStage": pvt_v2.Stage, "OsaStage": vovnet.Stage,
}  # fmt: skip
"""Native stages, each by the name of its adapter here."""
for name, native in STAGES.items():
    globals()[name] = ADAPTERS[native] = type(name, (Checkpointing, native), {"__module__": __name__})
