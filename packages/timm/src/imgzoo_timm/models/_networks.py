"""Native networks with the field's arguments and attributes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any, ClassVar

import torch.fx
from torch import nn

import imgzoo
from imgzoo.errors import OptionError
from imgzoo.features import FeatureInfo as NativeInfo
from imgzoo.loading.save import current_arguments
from imgzoo.model import Checkpointed
from imgzoo.model.tables import refill
from imgzoo_layers.norm_linear import NormLinear
from imgzoo_timm.layers._base import adopt, natively

from ._described import tell_sizes
from ._factory import asserted
from ._features import FeatureInfo, family_of
from ._finer import finer
from ._initial import BEGINNING, DEEP, DRAWN, begin, draw, shrink_by_depth
from ._manipulate import reparameterize_model
from ._patches import named_levels

DROPS = ("head_drop", "head.drop", "head.dropout", "head.head_drop", "head.classifier.3", "drop")
"""Where networks drop before the classifier, by the names of the part."""


class Network:
    """In front of a native network: what clients read beside its own interface."""

    __jit_unused_properties__: ClassVar[list[str]] = ["default_cfg", "grad_checkpointing", "drop_rate"]

    @property
    def default_cfg(self: Any) -> dict[str, Any]:
        return self.pretrained_cfg

    @default_cfg.setter
    def default_cfg(self: Any, cfg: dict[str, Any]) -> None:
        self.pretrained_cfg = cfg

    @property
    def grad_checkpointing(self: Any) -> bool:
        return any(isinstance(module, Checkpointed) for module in self.modules())

    @grad_checkpointing.setter
    def grad_checkpointing(self: Any, enable: bool) -> None:
        self.set_grad_checkpointing(enable)

    def __getattr__(self: Any, name: str) -> Any:
        if name == "global_pool" and self.parts.pool != "global_pool":  # a part of the head pools
            return self.pool_kind()
        if name == "fuse" and family_of(self) in FUSING:
            return partial(reparameterize_model, self, inplace=True)
        if name == "_init_weights" and family_of(self) in BEGINNING:
            return partial(begin, drawn=BEGINNING[family_of(self)])
        if name == "fix_init_weight" and family_of(self) in DEEP:
            return partial(shrink_by_depth, self)
        return super().__getattr__(name)  # type: ignore[misc]

    def after_construction(self: Any) -> None:
        """Let the parts have the field's attributes too; networks add what follows sizes."""
        from ._grids import OF_FAMILY
        from ._parts import tell_parts, tell_rows
        from ._stages import OF_NETWORK, adopt_rows

        adopt(self, {**OF_NETWORK, **OF_FAMILY.get(family_of(self), {})})
        adopt_rows(self)
        tell_sizes(self)
        tell_parts(self)
        family = family_of(self)
        if family in ANY_SIZE:
            self.take_any_size()
        widths = WIDTHS.get(family)
        if widths is not None and "embed_dim" not in self.__dict__:
            self.embed_dim = widths([level.channels for level in self.feature_info.levels])
        if family in CHANNELS_LAST:
            self.feature_dim = -1
        if self.channels_last and "output_fmt" not in self.__dict__:
            self.output_fmt = "NLC" if family in TOWERS else "NHWC"
        if "drop_rate" not in self.__dict__:
            parts = dict(self.named_modules())
            drop = next((parts[name] for name in DROPS if isinstance(parts.get(name), nn.Dropout)), None)
            self.drop_rate = 0.0 if drop is None else drop.p
        if isinstance(self.feature_info, NativeInfo) and not isinstance(self.feature_info, FeatureInfo):
            self.feature_info = FeatureInfo.of(self.feature_info)
            tell_rows(self)

    def forward_intermediates(self: Any, x: Any, *args: Any, output_dict: bool = False, **options: Any) -> Any:
        """As the native network's; with `output_dict` a dictionary: levels, class and register tokens where they are
        asked for, which patches are any, and features, under the field's names. `extra_blocks` of networks of mobile
        blocks counts the stem and every stage, `coarse=False` of Hiera every block."""
        if output_dict and not getattr(self, "num_prefix_tokens", 0):
            options.pop("return_prefix_tokens", None)
        with finer(self, options.pop("extra_blocks", False), options.pop("coarse", True)):
            result = super().forward_intermediates(x, *args, **options)  # type: ignore[misc]
        return named_levels(x, result) if output_dict else result

    def prune_intermediate_layers(self: Any, indices: Any = 1, prune_norm: bool = False, prune_head: bool = True,
                                  extra_blocks: bool = False, coarse: bool = True) -> list[int]:  # fmt: skip
        """As the native network's; `extra_blocks` and `coarse` as of `forward_intermediates`."""
        from ._parts import tell_normed

        with finer(self, extra_blocks, coarse):
            left = super().prune_intermediate_layers(indices, prune_norm, prune_head)  # type: ignore[misc]
        if family_of(self) == "vision_transformer_sam":
            tell_normed(self)
        return left

    def get_classifier(self: Any) -> Any:
        """The classifier, or what holds it in the field; a tuple where there are several."""
        if family_of(self) not in CLASSIFIERS:
            return super().get_classifier()  # type: ignore[misc]
        parts = dict(self.named_modules())
        found = tuple(parts[path] for path in CLASSIFIERS[family_of(self)] if path in parts)
        return found[0] if len(found) == 1 else found

    def reset_classifier(self: Any, num_classes: int, global_pool: str | None = None,
                         distillation: bool = False) -> None:  # fmt: skip
        """As the native network's; `distillation` keeps a second classifier where the first one has its norm."""
        if distillation and not self.parts.taught:
            raise OptionError(f"{type(self).__name__} has no second classifier that goes: leave distillation out")
        with asserted():
            super().reset_classifier(num_classes, global_pool)  # type: ignore[misc]
        if distillation:
            like = next(self.parameters())
            second = NormLinear(self.head_hidden_size, num_classes).to(like.device, like.dtype)
            self.head.head_dist = second.train(self.training)
            self.model_args = {**self.model_args, "distilled": True}

    @torch.no_grad()
    def init_weights(self: Any, *args: Any, **options: Any) -> None:
        """Draw the weights anew, and compute the tables beside them, as after `to_empty`: as of a network that is made
        with these options, or by a word of `weight_init` where vision transformers have it."""
        if not getattr(self, "name", ""):  # while it is made
            super().init_weights(*args, **options)  # type: ignore[misc]
            return
        mode = options.get("mode", args[0] if args else "")
        if options.keys() - {"needs_reset", "mode"} or len(args) > 1 or (mode and family_of(self) not in DRAWN):
            raise OptionError("weights are drawn one way here: init_weights takes no mode")
        drawn = imgzoo.create_model(self.name, **current_arguments(self)).state_dict()
        own = self.state_dict()
        self.load_state_dict({key: value for key, value in drawn.items() if key in own})
        refill(self)
        draw(self, mode)

    def load_pretrained(self: Any, checkpoint_path: str, prefix: str = "") -> None:
        """Read weights in a format of their authors, JAX arrays (`.npz`) among them; the prefix is found in them."""
        from ._helpers import load_checkpoint

        load_checkpoint(self, checkpoint_path)

    def __prepare_scriptable__(self: Any) -> nn.Module:
        return natively(self)

    def set_input_size(self: Any, *args: Any, **options: Any) -> None:
        with asserted():
            super().set_input_size(*args, **options)  # type: ignore[misc]
        self.after_construction()


CLASSIFIERS: dict[str, tuple[str, ...]] = {
    "crossvit": ("head",), "efficientvim": ("heads", "heads_dist"), "iformer": ("head",),
    "levit": ("head", "head_dist"), "metaformer": ("head.fc",), "repvit": ("head",), "sequencer": ("head",),
    "vision_transformer_sam": ("head",), "volo": ("head",),
}  # fmt: skip
"""Families whose `get_classifier` gives more than the linear layers, or fewer of them."""


FUSING = {"iformer", "repvit", "shvit"}
"""Families whose networks have a method `fuse` in the field."""
WIDTHS: dict[str, Callable[[list[int]], Any]] = {
    "crossvit": lambda dims: sorted(set(dims)), "efficientvim": tuple, "focalnet": list, "levit": tuple,
    "maxxvit": itemgetter(-1), "pit": itemgetter(-1), "repvit": tuple, "swin_transformer_v2": itemgetter(0),
    "vision_transformer_sam": itemgetter(0), "visformer": itemgetter(1),
}  # fmt: skip
"""What the field calls `embed_dim` of the widths of a family's levels, where its networks have no such attribute."""


ANY_SIZE = {"crossvit", "efficientvit_msra", "vision_transformer_sam"}
"""Families whose networks take every image in the field, where ours take those of the size that they are told."""
CHANNELS_LAST = {"deepseek_vit", "qwen3_vit", "sequencer"}
"""Families that say where channels are in what `forward_features` gives."""
TOWERS = {"deepseek_vit", "gemma4_vit", "qwen3_vit"}
"""Families that give tokens where others give maps."""
