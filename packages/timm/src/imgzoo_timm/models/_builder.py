"""Making a network from a class and what is known of its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import imgzoo
from imgzoo.errors import OptionError, WeightsError

from ._extractors import extractor_of
from ._factory import as_mapping, no_cache_dir
from ._manipulate import adapt_input_conv
from ._pretrained import PretrainedCfg, with_source
from ._registry import UnknownTagError, get_pretrained_cfg, known_fields, known_tags

__all__ = ["build_model_with_cfg", "load_custom_pretrained", "load_pretrained", "resolve_pretrained_cfg",
           "set_pretrained_download_progress"]  # fmt: skip


def resolve_pretrained_cfg(variant: str, pretrained_cfg: Any = None,
                           pretrained_cfg_overlay: Mapping[str, Any] | None = None) -> PretrainedCfg:  # fmt: skip
    """What is known of weights for a name: a tag of it, a table, or its default ones; the overlay goes before it."""
    name, cfg = variant, pretrained_cfg
    if isinstance(cfg, str):
        name, cfg = f"{variant.partition('.')[0]}.{cfg}", None
    if isinstance(cfg, Mapping):
        cfg = PretrainedCfg(**known_fields(dict(cfg)))
    found = cfg or get_pretrained_cfg(name)
    if found is None and name.partition(".")[2]:
        raise UnknownTagError(f"Invalid pretrained tag: {name} is not known, {known_tags(name.partition('.')[0])}")
    cfg = found or PretrainedCfg()
    cfg = replace(cfg, **known_fields(with_source(pretrained_cfg_overlay or {})))
    return cfg if cfg.architecture else replace(cfg, architecture=variant.partition(".")[0])


def build_model_with_cfg(
    model_cls: Callable[..., Any], variant: str, pretrained: bool, pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Any = None, model_cfg: Any = None, feature_cfg: Any = None,
    pretrained_strict: bool = True, pretrained_filter_fn: Any = None, cache_dir: Any = None, kwargs_filter: Any = None,
    pretrained_model_args: Any = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """`model_cls(**kwargs)` with its configuration, weights if wanted, and as an extractor where asked."""
    if pretrained_model_args:
        raise OptionError("options of a network are given as they are here: leave pretrained_model_args out")
    cfg = resolve_pretrained_cfg(variant, pretrained_cfg, pretrained_cfg_overlay)
    features, extractor = kwargs.pop("features_only", False), dict(feature_cfg or {})
    for key in ("out_indices", "feature_cls", "output_fmt", "out_map", "flatten_sequential", "feature_location"):
        if features and key in kwargs:
            extractor[key] = kwargs.pop(key)
    for key in ("num_classes", "global_pool", "in_chans"):
        if key == "num_classes":
            kwargs.setdefault(key, cfg.num_classes)
    for key in kwargs_filter or ():
        kwargs.pop(key, None)
    options = {key: value for key, value in kwargs.items() if value is not None}
    model = model_cls(**options) if model_cfg is None else model_cls(cfg=model_cfg, **options)
    told = cfg.to_dict()
    model.pretrained_cfg = model.default_cfg = {**getattr(model, "pretrained_cfg", {}), **told}
    if pretrained:
        load_pretrained(model, cfg, kwargs["num_classes"], filter_fn=pretrained_filter_fn, strict=pretrained_strict,
                        cache_dir=cache_dir)  # fmt: skip
    if features:
        indices = extractor.pop("out_indices", None)
        return extractor_of(model, indices, **extractor)
    return model


def load_pretrained(model: Any, pretrained_cfg: Any = None, num_classes: int = 1000, in_chans: int = 3,
                    filter_fn: Any = None, strict: bool = True, cache_dir: Any = None) -> None:  # fmt: skip
    """Put weights into a model: those that the configuration holds, or has the place of.

    Classifier and first convolution follow the model, whose classes and channels `num_classes` and `in_chans` repeat.
    With `custom_load` the file is given to the model's own `load_pretrained`, one of the hub only where it is "hf".
    """
    no_cache_dir(cache_dir)
    cfg = as_mapping(pretrained_cfg or getattr(model, "pretrained_cfg", None))
    state = cfg.get("state_dict")
    if state is None:
        path = cfg.get("file") or fetched(cfg)
        of_hub = not cfg.get("file") and bool(cfg.get("hf_hub_id"))
        if cfg.get("custom_load") in (("hf",) if of_hub else (True, "hf")) and hasattr(model, "load_pretrained"):
            model.load_pretrained(str(path))
            return
        if filter_fn is None and isinstance(model, imgzoo.ImageModel):
            imgzoo.load_checkpoint(model, path, strict=strict)
            return
        from ._helpers import load_state_dict

        state = load_state_dict(str(path))
    state = deepcopy(dict(state))
    if filter_fn is not None:
        state = filter_fn(state, model)
    own = model.state_dict()
    heads = cfg.get("classifier") or ()
    for head in (heads,) if isinstance(heads, str) else heads:
        for key in [key for key in state if key.startswith(f"{head}.")]:
            if state[key].shape != own[key].shape if key in own else num_classes == 0:
                del state[key]
                strict = False
    stems, base = cfg.get("first_conv") or (), (cfg.get("input_size") or (3,))[0]
    for stem in (stems,) if isinstance(stems, str) else stems:
        key = f"{stem}.weight"
        if key in state and key in own and state[key].shape[1] != own[key].shape[1]:
            cells = max(state[key].shape[1] // base, 1)
            state[key] = adapt_input_conv(own[key].shape[1] // cells, state[key], base)
    model.load_state_dict(state, strict=strict)


def load_custom_pretrained(model: Any, pretrained_cfg: Any = None, load_fn: Callable[..., Any] | None = None,
                           cache_dir: Any = None) -> None:  # fmt: skip
    """Give the file of published weights to `load_fn(model, path)` or the model's own `load_pretrained`, or read it."""
    no_cache_dir(cache_dir)
    cfg = as_mapping(pretrained_cfg or getattr(model, "pretrained_cfg", None))
    path = str(cfg.get("file") or fetched(cfg))
    if load_fn is not None:
        load_fn(model, path)
    elif hasattr(model, "load_pretrained"):
        model.load_pretrained(path)
    else:
        imgzoo.load_checkpoint(model, path)


def set_pretrained_download_progress(enable: bool = True) -> None:
    """Whether downloads of the hub show how far they are."""
    from huggingface_hub import utils

    (utils.enable_progress_bars if enable else utils.disable_progress_bars)()


def fetched(cfg: Mapping[str, Any]) -> Any:
    """The file of weights on the hub or behind a URL, downloaded by imgzoo."""
    from imgzoo.loading.places import download, hub_weights

    if cfg.get("hf_hub_id"):
        return hub_weights(cfg["hf_hub_id"], cfg.get("hf_hub_filename") or "")
    if cfg.get("url"):
        return download(cfg["url"])
    raise WeightsError(f"{cfg.get('architecture') or 'this model'} has no published weights: give a file")
