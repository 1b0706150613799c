"""Other activations, norms and biases for a network whose constructor has no word for them.

A class names in `exchanged` what its options `act`, `norm`, `eps` and those of biases change when it stands:

    exchanged = (Acts("gelu"), Norms("layernorm", ("!patch_embed.*",)))

Patterns (`*` fits any part of a path) name the parts it is about, with `!` in front those that stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .act import Act, create_act, get_act
from .norm import GroupNorm1, LayerNorm2d, Norm, RmsNorm, RmsNorm2d, get_norm
from .norm_act import NORM_ACT, LayerNormAct2d, get_norm_act, options_of

MAPS = (nn.BatchNorm2d, nn.GroupNorm, LayerNorm2d, LayerNormAct2d, RmsNorm2d)
KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "batchnorm": (nn.BatchNorm2d,),
    "groupnorm1": (GroupNorm1,),
    "*2d": MAPS,
    "layernorm": (nn.LayerNorm,),
    "layernorm*": (nn.LayerNorm,),
    "layernorm2d": (LayerNorm2d, LayerNormAct2d),
    "rmsnorm": (RmsNorm,),
    "rmsnorm2d": (RmsNorm2d,),
}
"""Classes of the norms that a network may have; with `*` those of tokens and of maps together, `*2d` all of maps."""
BOTH = ("layernorm", "rmsnorm", "simplenorm")
"""Norms of tokens that have a form for maps, called with `2d`."""
TOKEN_NORMS = (*BOTH, "layernormfp32")
MAP_NORMS = (*NORM_ACT, "simplenorm2d", "frozenbatchnorm2d")


class Acts(NamedTuple):
    """Option `act`, or one more: activations called `of` become another; several names for what a class may have."""

    of: str | tuple[str, ...]
    where: tuple[str, ...] = ()
    options: tuple[str, ...] = ("act",)

    def __call__(self, model: nn.Module, **given: Act) -> None:
        """Change the activations in place; `ValueError` for a name that is none."""
        ((option, act),) = given.items()
        kinds = {_kind_and_form(create_act(name)) for name in ((self.of,) if isinstance(self.of, str) else self.of)}
        get_act(act)

        def chosen(part: nn.Module) -> bool:
            return _kind_and_form(part) in kinds

        def make(old: nn.Module) -> nn.Module:
            return create_act(act, inplace=bool(getattr(old, "inplace", False)))

        _exchange(model, self.where, chosen, make, option)


class Norms(NamedTuple):
    """Options `norm` and `eps`, or two more: every norm called `of` becomes another, or gets another epsilon."""

    of: str
    where: tuple[str, ...] = ()
    options: tuple[str, ...] = ("norm", "eps")

    def __call__(self, model: nn.Module, *values: Any, **given: Any) -> None:
        """Change the norms in place; `ValueError` for a name that is none, or is none of tokens where tokens come."""
        given = {**dict(zip(self.options, values)), **given}
        told = next((name for name, value in given.items() if value is not None), self.options[0])
        eps: float | None = next((value for name, value in given.items() if name.endswith("eps")), None)
        norm: str | Norm | None = next((value for name, value in given.items() if name.endswith("norm")), None)
        key = norm.replace("_", "").lower() if isinstance(norm, str) else ""

        def chosen(part: nn.Module) -> bool:
            return isinstance(part, KINDS[self.of]) and (self.of != "layernorm" or not isinstance(part, MAPS))

        def make(old: nn.Module) -> nn.Module:
            name = _fitting(key, of_maps=isinstance(old, MAPS)) if key else norm
            same = isinstance(name, str) and isinstance(old, KINDS.get(name, ()))
            new = old if name is None or same else _like(old, name)
            if eps is not None:
                new.eps = eps  # type: ignore[assignment]
            return new

        _exchange(model, self.where, chosen, make, told)


class Biases(NamedTuple):
    """Option `qkv_bias`, or another: the layers get biases, or lose theirs."""

    where: tuple[str, ...]
    options: tuple[str, ...] = ("qkv_bias",)

    def __call__(self, model: nn.Module, **given: bool) -> None:
        """Change the layers in place; new biases are zero."""
        ((option, wanted),) = given.items()

        def change(layer: nn.Module) -> nn.Module:
            assert isinstance(layer, nn.Linear | nn.Conv2d)
            if wanted != (layer.bias is not None):
                zeros = layer.weight.new_zeros(len(layer.weight))
                layer.register_parameter("bias", nn.Parameter(zeros) if wanted else None)
            return layer

        _exchange(model, self.where, lambda part: isinstance(part, nn.Linear | nn.Conv2d), change, option)


class HeadScale(NamedTuple):
    """Option `head_init_scale`: the classifier's first values are so many times what a layer's usually are."""

    usual: float = 1.0
    """The factor that the constructor applies."""
    options: tuple[str, ...] = ("head_init_scale",)

    def __call__(self, model: nn.Module, head_init_scale: float) -> None:
        """Change the values in place."""
        head = model.get_classifier()  # type: ignore[operator]
        with torch.no_grad():
            for value in head.parameters():
                value.mul_(head_init_scale / self.usual)


class Checkpoints(NamedTuple):
    """Option `grad_checkpointing`: training keeps what enters a block, and computes the rest again."""

    options: tuple[str, ...] = ("grad_checkpointing",)

    def __call__(self, model: nn.Module, grad_checkpointing: bool) -> None:
        model.set_grad_checkpointing(grad_checkpointing)  # type: ignore[operator]


def _kind_and_form(act: nn.Module) -> tuple[type, str]:
    """Torch's class of an activation, which ours derive from, and which of its formulas it is."""
    kind = next(each for each in type(act).__mro__ if each.__module__.startswith("torch."))
    return kind, getattr(act, "approximate", "")


def _fitting(norm: str, of_maps: bool) -> str:
    """The name of a norm in its form for maps or for tokens; `ValueError` where there is none."""
    plain, known = norm.removesuffix("2d"), MAP_NORMS if of_maps else TOKEN_NORMS
    form = (f"{plain}2d" if plain in BOTH else norm) if of_maps else plain
    if form not in known:
        raise ValueError(
            f"norm '{norm}' is not one of {'maps' if of_maps else 'tokens'}; use one of {', '.join(known)}"
        )
    return form


def _like(old: nn.Module, norm: str | Norm) -> nn.Module:
    """Another norm in the place of one, with its epsilon, the activation behind it and its first values."""
    options: dict[str, object] = {"eps": old.eps} if isinstance(norm, str) or "eps" in options_of(norm) else {}
    if hasattr(old, "act"):
        new = get_norm_act(norm)(_width(old), apply_act=not isinstance(old.act, nn.Identity), **options)
        for name in ("act", "drop"):
            if hasattr(new, name):
                setattr(new, name, getattr(old, name))
    else:
        new = get_norm(norm)(_width(old), **options)
    with torch.no_grad():
        for name, value in new.named_parameters(recurse=False):
            first = getattr(old, name, None)
            if isinstance(first, Tensor) and first.shape == value.shape:
                value.copy_(first)
    return new


def _width(norm: nn.Module) -> int:
    """Channels of a norm."""
    for name in ("num_features", "num_channels"):
        if hasattr(norm, name):
            return int(getattr(norm, name))
    if isinstance(norm, RmsNorm):
        return norm.dim[0]
    assert isinstance(norm, nn.LayerNorm)
    return norm.normalized_shape[-1]


def _exchange(
    model: nn.Module, where: Sequence[str], chosen: Callable[[nn.Module], bool],
    make: Callable[[nn.Module], nn.Module], told: str,
) -> None:  # fmt: skip
    """Put `make(part)` in the place of every chosen part that the patterns name; one that stands twice, once.

    `told` names the option in an error.

    Raises:
        ValueError: there is no such part.
    """
    wanted = [pattern for pattern in where if pattern[0] != "!"] or ["*"]
    left = [pattern[1:] for pattern in where if pattern[0] == "!"]
    made: dict[nn.Module, nn.Module] = {}
    for path, module in list(model.named_modules()):
        for name, part in list(module._modules.items()):
            place = f"{path}.{name}" if path else name
            if part is None or not chosen(part) or _fits(place, left) or not _fits(place, wanted):
                continue
            if part not in made:
                made[part] = make(part)
            setattr(module, name, made[part])
    if not made:
        raise ValueError(f"it has no part that {told} changes: leave it out")


def _fits(place: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(place, pattern) for pattern in patterns)
