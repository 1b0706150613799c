"""Blocks that hand on more than tokens: called, hooked and replaced as the field's, which take and give tokens."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.fx
from torch import Tensor

from imgzoo.errors import OptionError
from imgzoo_archs_transformer import (
    beit,
    convit,
    eva,
    hiera,
    naflexvit,
    vision_transformer,
    vision_transformer_relpos,
    xcit,
)
from imgzoo_timm.layers._attention import self_attn_bias
from imgzoo_timm.layers._base import adapter


class Passing:
    """In front of a block of a state, tokens and what belongs to them: hooks see tokens come and go."""

    carried: ClassVar[tuple[str, ...]]
    """What the field calls the rest of the state."""

    def __call__(self, state: Any, *rest: Any, **named: Any) -> Any:
        if not isinstance(state, tuple):
            return super().__call__(state, *rest, **named)  # type: ignore[misc]
        return super().__call__(*state), *self.handed_on(*state[1:])  # type: ignore[misc]

    def handed_on(self, *rest: Any) -> tuple[Any, ...]:
        """What belongs to the tokens that come out."""
        return rest

    def forward(self, x: Tensor, *rest: Any, **named: Any) -> Tensor:
        rest += tuple(named.get(name) for name in self.carried[len(rest) :])
        return super().forward((x, *rest))[0]  # type: ignore[misc]


@adapter
class BeitBlock(Passing, beit.Block):
    carried = ("shared_rel_pos_bias",)


@adapter
class EvaBlock(Passing, eva.Block):
    """A block of mixed angles is given its own, of those of all blocks."""

    carried = ("rope",)

    def __call__(self, state: Any, *rest: Any, **named: Any) -> Any:
        if not isinstance(state, tuple) or self.depth is None or state[1] is None:
            return super().__call__(state, *rest, **named)
        return super().__call__(state[0], state[1][self.depth]), state[1]

    def forward(self, x: Tensor, rope: Tensor | None = None, attn_mask: Any = None, is_causal: bool = False) -> Tensor:
        if attn_mask is not None or is_causal:
            raise OptionError("attention of EVA sees all tokens here: leave attn_mask and is_causal out")
        return self.turned(x, rope)


@adapter
class RelPosBlock(Passing, vision_transformer_relpos.Block):
    carried = ("shared_rel_pos",)


@adapter
class MaskedBlock(Passing, naflexvit.MaskedBlock):
    carried = ("attn_mask", "rope")


@adapter
class RotaryBlock(Passing, naflexvit.RotaryBlock):
    carried = ("attn_mask", "rope")


torch.fx.wrap("self_attn_bias")


class Masked:
    """In front of a block that attends in itself: a mask becomes what is added to its scores."""

    def forward(self: Any, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        return super().forward(x, self_attn_bias(x, attn_mask, is_causal, self.fused_attn))  # type: ignore[misc]


@adapter
class ParallelScalingBlock(Masked, vision_transformer.ParallelScalingBlock):
    pass


@adapter
class DiffParallelScalingBlock(Masked, vision_transformer.DiffParallelScalingBlock):
    pass


@adapter
class ParallelThingsBlock(vision_transformer.ParallelThingsBlock):
    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        if attn_mask is None and not is_causal:
            return super().forward(x)
        attns: Any = self.attns
        masked = [(each, each.attn(each.norm(x), attn_mask=attn_mask, is_causal=is_causal)) for each in attns]
        x = x + torch.stack([each.drop_path(each.ls(y)) for each, y in masked]).sum(0)
        return x + torch.stack([ffn(x) for ffn in self.ffns]).sum(0)


@adapter
class HieraBlock(Passing, hiera.Block):
    carried = ()

    def handed_on(self, *rest: Any) -> tuple[Any, ...]:
        height, width = rest[0]
        return ((height // 2, width // 2) if self.left else rest[0],)

    def forward(self, x: Tensor, size: Any = (0, 0)) -> Tensor:  # tokens alone do not ask for it
        return super().forward(x, size)


@adapter
class XCABlock(Passing, xcit.Block):
    carried = ()

    def forward(self, x: Tensor, *size: Any) -> Tensor:
        return super().forward(x, size if len(size) == 2 else size[0])


@adapter
class LocalBlock(convit.LocalBlock):
    """The class token, which waits, is not seen."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, : self.prefix], super().__call__(x[:, self.prefix :])], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x), convit.offsets(self.grid[0], self.grid[1], x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))
