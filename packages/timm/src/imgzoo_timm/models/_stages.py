"""Stages whose blocks are checkpointed stage by stage, as clients ask for by `stage.grad_checkpointing`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import nn

from imgzoo.model import Checkpointed, swap_in, swap_out
from imgzoo_archs_cnn import densenet, fasternet, regnet, resnetv2, vovnet
from imgzoo_archs_transformer import (
    deepseek_vit,
    efficientvim,
    fastvit,
    gcvit,
    gemma4_vit,
    maxxvit,
    metaformer,
    mvitv2,
    nest,
    nextvit,
    pvt_v2,
    qwen3_vit,
    swin_transformer_v2_cr,
    tiny_vit,
    vitamin,
)
from imgzoo_layers import stage
from imgzoo_timm.layers._base import ADAPTERS, become


class Checkpointing:
    """In front of a stage of blocks."""

    __jit_unused_properties__: ClassVar[list[str]] = ["grad_checkpointing"]

    @property
    def grad_checkpointing(self: Any) -> bool:
        return any(isinstance(block, Checkpointed) for block in self.repeated())

    @grad_checkpointing.setter
    def grad_checkpointing(self: Any, enable: bool) -> None:
        for block in self.repeated():
            (swap_in if enable else swap_out)(block, Checkpointed)

    def repeated(self: Any) -> Iterable[nn.Module]:
        """The parts that run again for the backward pass."""
        return self.blocks


class DenseLayer(Checkpointing, densenet.DenseLayer):
    def repeated(self) -> Iterable[nn.Module]:
        return (self,)


class NestLevel(Checkpointing, nest.Level):
    def repeated(self) -> Iterable[nn.Module]:
        return self.transformer_encoder


class MbConvStages(Checkpointing, vitamin.MbConvStages):
    def repeated(self) -> Iterable[nn.Module]:
        return (block for stage in self.stages.children() for block in stage.children())


class SequentialStage(Checkpointing, nn.Sequential):
    """Of blocks in a row, or of such a row as its only child."""

    def repeated(self) -> Iterable[nn.Module]:
        return getattr(self, "blocks", self).children()


STAGES: dict[str, type[nn.Module]] = {
    "Stage": stage.Stage, "MapStage": swin_transformer_v2_cr.MapStage, "AttentionStage": tiny_vit.AttentionStage,
    "EfficientVimStage": efficientvim.Stage, "FastVitStage": fastvit.Stage, "GlobalContextVitStage": gcvit.Stage,
    "MaxxVitStage": maxxvit.Stage, "MetaFormerStage": metaformer.Stage, "MultiScaleVitStage": mvitv2.Stage,
    "NextStage": nextvit.Stage, "PyramidVisionTransformerStage": pvt_v2.Stage, "OsaStage": vovnet.Stage,
    "FasterStage": fasternet.Stage,
}  # fmt: skip
"""Native stages, each by the name of its adapter here."""
for name, native in STAGES.items():
    globals()[name] = ADAPTERS[native] = type(name, (Checkpointing, native), {"__module__": __name__})
for each in (DenseLayer, NestLevel, MbConvStages):
    ADAPTERS[each.__bases__[-1]] = each
ENCODERS = {"DeepSeekStage": deepseek_vit.DeepSeekEncoder, "Gemma4Stage": gemma4_vit.Gemma4Encoder,
            "Qwen3Stage": qwen3_vit.Qwen3Encoder}  # fmt: skip
"""Networks that are a stage of another, each by the name of its adapter here."""
OF_NETWORK: dict[type[nn.Module], type[nn.Module]] = {}
for name, native in ENCODERS.items():
    globals()[name] = OF_NETWORK[native] = type(name, (Checkpointing, native), {"__module__": __name__})
IN_ROWS = (regnet.RegNet, resnetv2.ResNetV2)
"""Networks whose stages have no class of their own."""


def adopt_rows(model: nn.Module) -> None:
    """Let the stages of a network, and of networks inside, be checkpointed one by one where no adapter does."""
    for module in model.modules():
        if isinstance(module, IN_ROWS):
            for _, stage in module._stages():
                if type(stage) is nn.Sequential:
                    become(stage, SequentialStage)
