"""What a network takes: its size, its channels, and the options that made it so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imgzoo.errors import UsageError
from imgzoo.features import FeatureModel
from imgzoo.loading.save import current_arguments, spoken_arguments
from imgzoo.model import ImageModel

from ._features import Extractor

__all__ = ["get_model_args", "get_model_input_config", "get_model_traits", "resolve_model_input_args"]


def unwrapped(model: Any) -> Any:
    """The network inside wrappers of training and compiling."""
    while hasattr(model, "module") or hasattr(model, "_orig_mod"):
        model = model.module if hasattr(model, "module") else model._orig_mod
    return model


def network_of(model: Any) -> Any:
    """The network inside wrappers and extractors."""
    model = unwrapped(model)
    if isinstance(model, Extractor):
        return model.network
    return model.model if isinstance(model, FeatureModel) else model


def own_size(model: Any) -> tuple[int, int] | None:
    """The size that tables of a network are made for, None where it takes any."""
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None) or getattr(model, "img_size", None)
    return (size, size) if isinstance(size, int) else size and tuple(size)


def fits_any_size(options: Any) -> bool:
    """Whether options, or attributes of a network, let it take images of any size."""
    told = options if isinstance(options, Mapping) else vars(options)
    return bool(told.get("dynamic_img_size") or told.get("use_naflex") or told.get("strict_img_size", True) is False)


def get_model_input_config(model: Any) -> dict[str, Any]:
    """Channels and size, whether it is the only one, and the first convolution."""
    model = network_of(model)
    cfg = dict(getattr(model, "pretrained_cfg", None) or {})
    size, chans = own_size(model), getattr(model, "in_chans", None)
    of_weights = tuple(cfg.get("input_size") or (3, 224, 224))
    return {"input_size": (chans or of_weights[0], *(size or of_weights[1:])),
            "fixed_input_size": bool(cfg.get("fixed_input_size", False)) and not fits_any_size(model),
            "first_conv": cfg.get("first_conv")}  # fmt: skip


def get_model_traits(model: Any) -> dict[str, Any]:
    """The same with classes and channels, `img_size` being None where a network is made for no size; nothing of other
    modules, and no classes of an extractor."""
    network = network_of(model)
    if not hasattr(network, "pretrained_cfg"):
        return {}
    config = get_model_input_config(network)
    size = own_size(network) or (config["input_size"][1:] if config["fixed_input_size"] else None)
    traits = {"img_size": size, "fixed_input_size": config["fixed_input_size"], "first_conv": config["first_conv"],
              "in_chans": getattr(network, "in_chans", None)}  # fmt: skip
    if network is unwrapped(model):
        traits["num_classes"] = getattr(network, "num_classes", None)
    return traits


def get_model_args(model: Any, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Options of `create_model` that make a network of this form again: those it was made with, without the rates of
    training, as it is now."""
    from ._hub import DROPS

    network = network_of(model)
    found: dict[str, Any] = {}
    if isinstance(network, ImageModel):
        if getattr(network, "name", ""):
            said, own = spoken_arguments(network, current_arguments(network))
            found = {key: value for key, value in {**said, **own}.items() if not DROPS.search(key)}
        head = {"num_classes": network.num_classes, "global_pool": network.pool_kind()}
        found |= {**head, "in_chans": network.in_chans, "img_size": own_size(network)}
        if network is not unwrapped(model):
            found = {key: value for key, value in found.items() if key not in head} | {"features_only": True}
    return {key: value for key, value in {**found, **(overrides or {})}.items() if value is not None}


def asked_input(args: Mapping[str, Any]) -> tuple[int | None, tuple[int, int] | None]:
    """Channels and size that a script's `in_chans` (or `chans`), `img_size` and `input_size` ask for together.

    Raises:
        UsageError: they say different things, or are no size.
    """
    whole, side, chans = args.get("input_size"), args.get("img_size"), args.get("in_chans", args.get("chans"))
    if chans is not None and (isinstance(chans, bool) or not isinstance(chans, int) or chans < 1):
        raise UsageError(f"in_chans is 1 or more, not {chans!r}")
    size = None
    if side is not None:
        size = (side, side) if isinstance(side, int) else tuple(side)
        if len(size) != 2:
            raise UsageError(f"img_size is a number or two, not {side!r}")
    if whole is not None:
        if len(tuple(whole)) != 3:
            raise UsageError(f"input_size has channels, height and width, not {whole!r}")
        for word, said, here in (("in_chans", chans, whole[0]), ("img_size", size, tuple(whole[1:]))):
            if said is not None and said != here:
                raise UsageError(f"Conflicting input: {word} is {said}, and {here} by input_size")
        chans, size = whole[0], tuple(whole[1:])
    return chans, size


def resolve_model_input_args(model_name: str, args: Mapping[str, Any] | None = None,
                             **model_kwargs: Any) -> dict[str, Any]:  # fmt: skip
    """Options of `create_model` from a script's `input_size`, `img_size` and `in_chans`; only a network of one size
    is told of another.

    Raises:
        UsageError: they contradict each other or the options of the network.
    """
    from ._builder import resolve_pretrained_cfg
    from ._factory import as_mapping, folder_cfg

    chans, size = asked_input({key: value for key, value in dict(args or {}).items() if value is not None})
    told, overlay = model_kwargs.pop("pretrained_cfg", None), model_kwargs.pop("pretrained_cfg_overlay", None)
    folder = folder_cfg(model_name) if told is None else None
    cfg = {**(folder or as_mapping(resolve_pretrained_cfg(model_name, told))), **(overlay or {})}
    found: dict[str, Any] = {"model_name": model_name, "pretrained_cfg": cfg, **model_kwargs}
    if chans is not None and found.setdefault("in_chans", chans) != chans:
        raise UsageError(f"Conflicting input: in_chans is {chans}, and {found['in_chans']} among the model's options")
    if size is not None and cfg.get("fixed_input_size"):
        own = found.setdefault("img_size", size)
        if ((own, own) if isinstance(own, int) else tuple(own)) != size and not fits_any_size(model_kwargs):
            raise UsageError(f"Conflicting input: img_size is {size}, and {own} among the model's options")
    return found
