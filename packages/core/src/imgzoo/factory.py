"""`create_model`: from a name and options to a network, with or without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from .construction import call
from .errors import CapabilityError, OptionError
from .features import FeatureModel, default_out_indices
from .loading.source import ModelSource, locate
from .loading.stored import stated
from .options import Parameters, check_network, check_stages, parameters_of, plain_numbers
from .registry import registry
from .specs import ModelSpec, WeightSpec
from .spelling import near_words, translated

if TYPE_CHECKING:
    from .model import ImageModel


@overload
def create_model(
    name: str,
    *,
    features_only: Literal[True],
    pretrained: bool | str | PathLike[str] = False,
    out_indices: int | Sequence[int] | None = None,
    feature_cfg: Mapping[str, Any] | None = None,
    **options: Any,
) -> FeatureModel: ...


@overload
def create_model(
    name: str,
    *,
    pretrained: bool | str | PathLike[str] = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    global_pool: str | None = None,
    features_only: Literal[False] = False,
    output_stride: int | None = None,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> ImageModel: ...


@overload
def create_model(name: str, **options: Any) -> Any: ...


def create_model(
    name: str,
    *,
    pretrained: bool | str | PathLike[str] = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    global_pool: str | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    feature_cfg: Mapping[str, Any] | None = None,
    output_stride: int | None = None,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    pretrained_cfg: Mapping[str, Any] | None = None,
    use_naflex: bool | None = None,
    **options: Any,
) -> Any:
    """Create the network `name`: `[plugin/]arch[.tag]`, `hf-hub:org/repo[@rev]`, `local-dir:PATH` or `package:DIST`.

    Args:
        pretrained: True for the tag's weights (the default tag's without one), or where they are: a tag, a
            `.safetensors` or `.pth` file, `hf-hub:...`, `local-dir:...`, `package:...` or a bundle folder.
        num_classes: outputs of the classifier; 0 removes it; None takes as many as the weights have.
        in_chans: channels of the image; pretrained kernels are adapted.
        img_size: height and width, or one number, for networks with position tables.
        features_only: return a list of feature maps instead of logits, those of `out_indices`.
        feature_cfg: how: options of `FeatureModel`, as `{"norm": True, "names": ["c4", "c5"]}`.
        output_stride: 8, 16 or 32: dilate instead of striding further (convolutional networks).
        pretrained_cfg: preprocessing that goes before what the weights say, as `{"mean": (0.5, 0.5, 0.5)}`; it stays
            with the model, and with what is saved of it.
        use_naflex: let it take patches of images of any shapes, too (`imgzoo.model.take_patches`).
        options: anything else the network's constructor takes, in its own spelling or the field's (`act_layer`,
            `init_values`, ...); None is dropped.

    Raises:
        UnknownNameError: no plugin brings the name or tag.
        OptionError: the network takes no such option; the message lists those it takes.
        CapabilityError: this family cannot do it; the message names one that can.
        WeightsError: the weights are missing, damaged, unsafe, forbidden by license or do not fit.
    """
    named = locate(name, pretrained)
    named.config = {**named.config, **stated(pretrained_cfg)}
    spec, weights = named.spec, named.weights
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise OptionError(f"dtype is one of torch's, as torch.bfloat16, not {dtype!r}")
    common = dict(num_classes=num_classes, in_chans=in_chans, img_size=img_size, global_pool=global_pool,
                  output_stride=output_stride, drop_rate=drop_rate, drop_path_rate=drop_path_rate,
                  use_naflex=use_naflex)  # fmt: skip
    for word, value in (("out_indices", out_indices), ("feature_cfg", feature_cfg)):
        if value is not None and not features_only:
            raise OptionError(f"{word} needs features_only=True")
    check_feature_options(feature_cfg or {})
    given = {key: plain_numbers(value) for key, value in {**common, **options}.items() if value is not None}
    config = {**named.model_args, **translated(spec, given)}
    build = spec.load()
    naflex = config.pop("use_naflex", False)
    arguments = constructor_options(spec, weights, build, config)

    def construct(**changes: Any) -> Any:
        made = call(build, spec, {**arguments, **changes}, config)
        if not features_only:
            made.check_vector(made.num_classes, made.pool_kind())
        return made

    if named.weights_from:
        from .loading.load import create_pretrained

        model = create_pretrained(construct, named, device, dtype, adopt_classes="num_classes" not in config)
    else:
        model = construct_on(torch.device(device or torch.get_default_device()), construct)
        if dtype is not None:
            model.to(dtype=dtype)
    if naflex:
        from .model import take_patches

        config["use_naflex"] = True
        model.name = spec.name
        take_patches(model)
    remember(model, named, config, sized="img_size" in given)
    if features_only:
        indices = default_out_indices(model) if out_indices is None else out_indices
        model = FeatureModel(model, indices, **feature_cfg or {})
    from .discovery.manager import manager

    manager().tell("imgzoo_model_created", model=model, spec=spec)
    return model


def check_feature_options(given: Mapping[str, Any]) -> None:
    """Raise `OptionError` for an option that `FeatureModel` does not take."""
    taken = [key for key in parameters_of(FeatureModel)[0] if key not in ("model", "out_indices")]
    unknown = [key for key in given if key not in taken]
    if unknown:
        raise OptionError(f"feature_cfg has no option {', '.join(map(repr, unknown))}; it takes {', '.join(taken)}")


MOST_NAMES = 30
"""Options that a message names."""


def construct_on(device: torch.device, construct: Callable[[], Any]) -> Any:
    """Run a constructor with a default device; on the meta device there are no values to initialize."""
    from .loading.skeleton import build_initialized, build_skeleton

    with nullcontext() if device == torch.get_default_device() else device:
        return build_skeleton(construct)[0] if device.type == "meta" else build_initialized(construct)


def constructor_options(
    spec: ModelSpec, weights: WeightSpec | None, build: Callable[..., Any], given: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of the constructor: the row's, the weights', then the user's; what it cannot take is an error."""
    parameters, anything = parameters_of(build)
    defaults: dict[str, Any] = {}
    if weights is not None:
        defaults["num_classes"] = weights.num_classes
        if weights.input_size[0] != 3:
            defaults["in_chans"] = weights.input_size[0]
        if weights.fixed_input_size and "img_size" in parameters:
            defaults["img_size"] = weights.input_size[-2:]
        defaults |= weights.kwargs
    arguments = {**defaults, **spec.kwargs, **given}
    if not anything:
        _drop_harmless(arguments, parameters, spec)
        unknown = [key for key in arguments if key not in parameters]
        if unknown:
            near = [each for word in unknown for each in near_words(spec, parameters, word)]
            names = sorted(parameters)
            if len(names) > MOST_NAMES:
                names[MOST_NAMES:] = [f"and {len(names) - MOST_NAMES} more: `imgzoo info {spec.name} --options`"]
            taken = ", ".join(names) + (f"; nearest are {', '.join(near)}" if near else "")
            raise OptionError(f"{spec.name} has no option {', '.join(map(repr, unknown))}; it takes {taken}")
    check_network(spec.name, build, given)
    row = {name: each.default for name, each in parameters.items()} | defaults | dict(spec.kwargs)
    check_stages(spec.name, row, given)
    return arguments


def _drop_harmless(arguments: dict[str, Any], parameters: Parameters, spec: ModelSpec) -> None:
    """Settle options that every call may give: no-ops go, impossible ones say which families can."""
    if "img_size" in arguments and "img_size" not in parameters:
        arguments.pop("img_size")  # a network without position tables takes any size
    if "output_stride" in arguments and "output_stride" not in parameters:
        if arguments["output_stride"] != 32:
            raise CapabilityError(f"{spec.name} has no output_stride; {families_with('output_stride')}")
        arguments.pop("output_stride")
    if "drop_path_rate" in arguments and "drop_path_rate" not in parameters:
        if arguments["drop_path_rate"]:
            raise CapabilityError(f"{spec.name} has no stochastic depth; leave drop_path_rate out")
        arguments.pop("drop_path_rate")


def families_with(capability: str) -> str:
    """A sentence naming families that declare a capability."""
    families = sorted({s.family for s in registry("models").specs() if capability in s.capabilities})
    return f"families that can are {', '.join(families[:8])}" if families else "no installed family can"


def remember(model: Any, named: ModelSource, given: dict[str, Any], sized: bool) -> None:
    """Write on the model what it is: name, the options that differ from its row, preprocessing, task, class names.

    A network of any size that is not asked for one (`sized`) is given images of the size that its file tells.
    """
    model.name = named.spec.name
    model.model_args = given
    model.pooled_at_first = model.pool_kind()
    config = named.preprocessing()
    size = getattr(model, "img_size", None) or given.get("img_size") or config["input_size"][1:]
    if not sized and (getattr(model, "dynamic_img_size", False) or "use_naflex" in given):
        size = config["input_size"][1:]
    height, width = (size, size) if isinstance(size, int) else size
    config |= {"num_classes": model.num_classes, "input_size": (model.in_chans, height, width)}
    model.pretrained_cfg = config
    model.task = named.task
    model.class_names = named.class_names if model.num_classes == len(named.class_names or ()) else None
