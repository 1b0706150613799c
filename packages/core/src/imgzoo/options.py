"""The options of a constructor: which there are, of what kind, and a line about each. No torch."""

from __future__ import annotations

import difflib
import inspect
import math
import numbers
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from .errors import OptionError, UsageError

Parameters = Mapping[str, inspect.Parameter]
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

LINES: dict[str, str] = {
    "aa": 'blur before strided layers: "avg", "blur" (reflected border), "blurpc" (constant border) or none',
    "abs_pos": "add a learned table of absolute positions",
    "act": 'activation by name: "relu", "gelu", "silu", "hard_swish", ...',
    "always_partition": "windows even where the map is no larger than one",
    "attn_drop_rate": "dropout of attention weights, 0 to 1",
    "avg_down": "halve shortcuts by an average pool before a 1x1 convolution",
    "base_width": "channels of a group at 64 channels of a block's width",
    "bottle_ratio": "hidden channels of a block as a share of its width",
    "cardinality": "groups of a block's 3x3 convolution",
    "channels": "channels of each stage",
    "class_token": "a learned token beside the patches",
    "conv_bias": "biases of convolutions",
    "depth": "number of blocks",
    "depths": "blocks of each stage",
    "dims": "channels of each stage",
    "divisor": "channels are multiples of this",
    "down_kernel": "kernel of the convolution that halves the map",
    "dw_act": "activation behind the depthwise convolutions",
    "downsample": 'shortcut of a block that changes the shape: "conv1x1", "avg" or none',
    "drop_block_rate": "DropBlock in the last two stages: share of zeroed activations, 0 to 1",
    "drop_path_rate": "stochastic depth: probability that the last block is skipped; earlier ones less",
    "drop_rate": "dropout before the classifier, 0 to 1",
    "dynamic_img_size": "take images of any size, with tables fitted in every call",
    "embed_dim": "channels of the tokens, or of each stage",
    "embed_dims": "channels of each stage or branch",
    "eps": "epsilon of the norms",
    "fc_norm": "norm behind the pool, not before it; None as the pool needs",
    "final_norm": "a norm behind the last block",
    "gate": 'channel gate by name: "se", "ese", "eca", "ceca", "gc", "gca" or "bat"; none without',
    "gate_act": "activation inside the gate; None as in the blocks",
    "gate_ratio": "hidden channels of the gate as a share of its input",
    "global_blocks": "indices of the blocks that attend to the whole map; the others to windows",
    "global_pool": 'pool before the classifier: "avg", "max", "avgmax", "catavgmax", "token", ...; "" for none',
    "grad_checkpointing": "training keeps what enters a block, and computes the rest again",
    "group_size": "channels of a group of the block's convolution; 0 or none for one group",
    "groups": "groups of the grouped convolutions",
    "head_dim": "channels of each attention head",
    "head_init_scale": "factor of the classifier's initial values",
    "head_hidden": "channels of a layer before the classifier; 0 or none for none",
    "head_widths": "channels of the two layers before the classifier",
    "img_size": "height and width in pixels, or one number, that position tables are made for",
    "in_chans": "channels of the image",
    "kernels": "kernel of each stage",
    "layer_scale": "initial value of a learned scale on each residual branch; none for no scale",
    "layers": "blocks of each stage",
    "merges": "join tokens as the language model takes them, then pool",
    "mlp": 'mlp of a block: "mlp", "glu", "swiglu" or "geglu"',
    "mlp_bias": "biases of the mlps",
    "mlp_ratio": "hidden channels of an mlp as a multiple of its input",
    "mlp_ratios": "hidden channels of the mlps of each stage as a multiple of their input",
    "no_embed_class": "positions for patches only, none for class and register tokens",
    "norm": 'norm by name: "batchnorm", "layernorm", "rmsnorm", "groupnorm", ...',
    "norm_group": "channels of a group of the group norm",
    "num_classes": "outputs of the classifier; 0 removes it",
    "num_features": "channels of a convolution before the pool; 0 for none",
    "num_heads": "attention heads, or those of each stage",
    "num_vit": "blocks at the end that attend",
    "out_features": "channels of merged tokens; 0 leaves the tokens apart",
    "output_stride": "pixels that one position of the last map stands for: 8, 16 or 32; less is dilated",
    "overlap": "strided convolutions overlap",
    "padding": 'border of convolutions: "" (symmetric) or "same" (as TensorFlow pads)',
    "patch_drop_rate": "share of patches left out in training",
    "patch_size": "side of a patch in pixels",
    "pos_drop_rate": "dropout behind the position table, 0 to 1",
    "post_norm": "norms behind attention and mlp, not before them",
    "pre_norm": "a norm before the first block",
    "preact": "norm and activation before each convolution",
    "proj_drop_rate": "dropout of the projections of attention and mlp, 0 to 1",
    "pruned": "name of the file with the channels that pruning left",
    "qk_norm": "norms of queries and keys",
    "qkv_bias": "biases of queries, keys and values",
    "reg_tokens": "number of register tokens",
    "rel_pos_dim": "hidden channels of the mlp that makes position biases",
    "rope": 'rotary positions: "axial", "mixed", "dinov3", "mrope" or none',
    "rope_columns_first": "columns before rows among the rotated channels",
    "rope_halves": "rotate the halves of a head, not neighboring channels",
    "rope_jitter": "largest random factor of each axis in training; 0 for none",
    "rope_random_shift": "largest random shift of positions in training",
    "rope_rescale": "largest random factor of both axes in training; 0 for none",
    "rope_sections": "frequencies of time, rows and columns; none for 8, 12 and 12",
    "rope_shift": "added to each position",
    "rope_theta": "base of the rotary frequencies",
    "scale_attn_norm": "a norm before the output projection of attention",
    "scale_mlp_norm": "a norm before the output projection of the mlp",
    "se_ratio": "hidden channels of squeeze-excite as a share of the block's; 0 for none",
    "sr_ratios": "how much keys and values of each stage are reduced, along a side",
    "stem_dims": "channels of the stem's convolutions",
    "stem_kernel": "kernel of the stem's first convolution",
    "stem_size": "channels of the stem",
    "stem_stride": "how much the stem reduces the image, along a side",
    "stem_width": "channels of the stem",
    "strides": "stride of each stage",
    "token_eps": "epsilon of the norms of tokens, where `eps` is that of maps",
    "token_norm": "norm of tokens by name, where `norm` is that of maps",
    "width": "factor of all channels",
    "widths": "channels of stem and stages",
    "window_size": "side of an attention window in patches, or that of each stage",
    "zero_init_last": "blocks start as the identity: their last norm is zero",
}
"""Options that families share, one line each; those of a single family stand under `Args:` in its docstring."""


EXCHANGED: dict[str, Any] = {
    "act": str | Callable[..., Any] | None,
    "conv_bias": bool | None,
    "dw_act": str | Callable[..., Any] | None,
    "eps": float | None,
    "grad_checkpointing": bool | None,
    "head_init_scale": float | None,
    "mlp_bias": bool | None,
    "norm": str | Callable[..., Any] | None,
    "qkv_bias": bool | None,
    "token_eps": float | None,
    "token_norm": str | Callable[..., Any] | None,
}
"""Options that may change parts of a finished network, and their types (see `imgzoo_layers.exchange`)."""


PARTS = ("act", "attn_act", "dw_act", "embed_norm", "mlp_act", "norm", "token_norm")
"""Options that take a class or a function of the caller's where they take a name."""


@cache  # a model is created by way of several readers
def parameters_of(build: Callable[..., Any]) -> tuple[Parameters, bool]:
    """The options of a network: those its constructor takes and those of its `exchanged`; True if it takes any."""
    own, anything = constructor_of(build)
    later = {
        name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=EXCHANGED[name])
        for name in exchanges_of(build)
    }
    return {**own, **later}, anything


@cache
def exchanges_of(build: Callable[..., Any]) -> Mapping[str, Callable[..., None]]:
    """Options that the constructor does not take: what changes the finished network for each."""
    own, _ = constructor_of(build)
    return {name: part for part in getattr(build, "exchanged", ()) for name in part.options if name not in own}


@cache
def constructor_of(build: Callable[..., Any]) -> tuple[Parameters, bool]:
    """The options a constructor takes, those it hands to its base class included; True if it takes any.

    Those of the base class that it gives itself stand in the class's `settled`.
    """
    if not inspect.isclass(build):
        parameters = inspect.signature(build).parameters
        return _named(parameters), _is_open(parameters)
    found: dict[str, inspect.Parameter] = {}
    parameters: Parameters = {}
    for cls in build.__mro__:
        if "__init__" not in cls.__dict__:
            continue
        parameters = inspect.signature(cls.__init__).parameters
        found = {**_named(parameters), **found}
        found.pop("self", None)
        if not _is_open(parameters):
            break
    settled = getattr(build, "settled", ())
    return {name: each for name, each in found.items() if name not in settled}, _is_open(parameters)


def _named(parameters: Parameters) -> dict[str, inspect.Parameter]:
    return {name: each for name, each in parameters.items() if each.kind in NAMED}


def _is_open(parameters: Parameters) -> bool:
    return any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def kinds_of(build: Callable[..., Any]) -> dict[str, Any]:
    """The type of each option of a constructor: as annotated, else that of its default; `Any` where nobody can tell."""
    kinds: dict[str, Any] = {}
    for place in build.__mro__ if inspect.isclass(build) else (build,):
        make = place.__dict__.get("__init__") if inspect.isclass(place) else place
        if not (inspect.isfunction(make) or inspect.ismethod(make)):
            continue
        for name, each in inspect.signature(make).parameters.items():
            if each.kind in NAMED and name != "self":
                kinds.setdefault(name, _kind(each, inspect.unwrap(make).__globals__))
    own = {name: kinds[name] | Callable[..., Any] for name in PARTS if name in kinds and is_of("", kinds[name])}
    return {**{name: EXCHANGED[name] for name in exchanges_of(build)}, **kinds, **own}


def _kind(parameter: inspect.Parameter, names: dict[str, Any]) -> Any:
    if parameter.annotation is not parameter.empty:
        holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
        try:
            return typing.get_type_hints(holder, names)["it"]
        except (NameError, TypeError):  # what only a type checker can resolve
            return Any
    return Any if parameter.default in (parameter.empty, None) else type(parameter.default)


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", types.NoneType: "none"}
_ABSTRACT = {bool: bool, int: numbers.Integral, float: numbers.Real}
_ROWS = (Sequence, Iterable, list, tuple)


def is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of a type. A whole number is a number, truth is none, a list serves as any row of values."""
    origin: Any = typing.get_origin(kind)
    inner = list(typing.get_args(kind))
    if kind is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(is_of(value, each) for each in inner)
    if origin is typing.Literal:
        return value in inner
    if kind in _ABSTRACT:
        return isinstance(value, _ABSTRACT[kind]) and isinstance(value, bool) == (kind is bool) and value == value
    if (origin or kind) in _ROWS:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            return False
        if not isinstance(value, Sequence) or not inner:
            return True
        if origin is tuple and inner[-1] is not Ellipsis and len(inner) > 1:
            return len(value) == len(inner) and all(map(is_of, value, inner))
        return all(is_of(each, inner[0]) for each in value)
    if origin is not None and not inspect.isclass(origin):
        return True
    return isinstance(value, origin or kind) if inspect.isclass(origin or kind) else True


def plain_numbers(value: Any) -> Any:
    """A number, or a row of them, of numpy's or torch's as Python's, which checks know and files can hold."""
    if hasattr(value, "tolist") and not isinstance(value, type):
        return value.tolist()
    if type(value) is list:
        return [*map(plain_numbers, value)]
    return tuple(map(plain_numbers, value)) if type(value) is tuple else value


def named_kind(kind: Any) -> str:
    """A type in words: "a number", "a list of whole numbers", "'min' or 'max'"."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(named_kind, inner)))
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if (origin or kind) in _ROWS:
        of = named_kind(inner[0]).partition(" ")[2] if inner and inner[0] in _ABSTRACT else ""
        count = f"{len(inner)} " if origin is tuple and inner[-1] is not Ellipsis else ""
        return f"a list of {count}{of}s" if of else "a list"
    if (origin or kind) is Callable:
        return "a function"
    return _KINDS.get(kind) or f"a {getattr(origin or kind, '__name__', kind)}"


def check_kinds(what: str, build: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise `UsageError` where the value of an option is not of the type that the constructor declares."""
    kinds = kinds_of(build)
    for name, value in options.items():
        kind = kinds.get(name, Any)
        if not is_of(value, kind):
            raise UsageError(f"{what}: {name} is {named_kind(kind)}, not {value!r}")


def check_names(what: str, build: Callable[..., Any], options: Iterable[str], more: Iterable[str] = ()) -> None:
    """Raise `OptionError`, listing those that it takes, for an option that the constructor does not take."""
    taken, anything = parameters_of(build)
    valid = sorted({*taken, *more} - {"params"})
    wrong = sorted(set(options) - set(valid))
    if wrong and not anything:
        near = difflib.get_close_matches(wrong[0], valid, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        rest = f"valid options are {', '.join(valid)}" if valid else "it has none"
        raise OptionError(f"{what} takes no option {', '.join(wrong)}{hint}; {rest}")


class Range(NamedTuple):
    """Where a number may lie; `above` and `below` leave the ends out."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def has(self, value: float) -> bool:
        low = self.low < value if self.above else self.low <= value
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"a finite number {'above' if self.above else 'of at least'} {self.low:g}"
        if self.low == -math.inf:
            return f"a finite number {'below' if self.below else 'of at most'} {self.high:g}"
        return f"a number in {'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"


ONE, POSITIVE, SHARE = Range(1), Range(0, above=True), Range(0, 1, below=True)
NETWORK_RANGES = {
    **dict.fromkeys(("embed_dim", "embed_dims", "dims", "dim", "num_heads", "widths", "channels"), ONE),
    **dict.fromkeys(("patch_size", "img_size", "window_size", "stem_width", "stem_size", "head_dim", "in_chans"), ONE),
    **dict.fromkeys(("layers", "num_blocks", "kernel", "kernels", "growth", "groups", "output_stride"), ONE),
    **dict.fromkeys(("first_width", "first_blocks", "init_channels", "inner_dim", "inner_heads"), ONE),
    **dict.fromkeys(("merge_size", "pos_grid", "places", "focal_window", "band_kernel", "down_kernel"), ONE),
    **dict.fromkeys(("down_stride", "num_kv_heads"), ONE),
    **dict.fromkeys(("mlp_ratio", "mlp_ratios", "width", "bottle_ratio", "cardinality", "divisor"), POSITIVE),
    **dict.fromkeys(("depth", "scale"), POSITIVE),
    "backbone_level": Range(),
}
"""Options of networks whose numbers are narrower, or wider, than at least 0; those called `..._rate` are below 1."""


def check_network(what: str, build: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise `UsageError` for an option of a network that is of another type than declared, or out of its range."""
    check_kinds(what, build, options)
    for name, parameter in parameters_of(build)[0].items():
        if isinstance(parameter.default, (list, tuple)) and parameter.default and options.get(name) in ([], ()):
            raise UsageError(f"{what}: {name} must have at least one element, got {options[name]!r}")
    usual = {name: SHARE if name.endswith("_rate") else Range(0) for name in options}
    check_ranges(what, options, usual | NETWORK_RANGES)


DEPTHS = ("depths", "depth", "layers", "serial_depths", "levels")
"""What families call the list of how many blocks each stage has."""


def check_stages(what: str, row: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise `UsageError` where lists with an entry for each stage, as those of a model's `row`, get unlike lengths."""
    lists = {name: value for name, value in row.items() if isinstance(value, (list, tuple))}
    depths = next((name for name in DEPTHS if name in lists), "")
    by_stage = [name for name, value in lists.items() if depths and len(value) == len(lists[depths])]
    if not any(name in given for name in by_stage):
        return
    now = {name: given.get(name, row[name]) for name in by_stage}
    counts = {name: len(value) for name, value in now.items() if isinstance(value, (list, tuple))}
    for name, count in counts.items():
        if count != counts.get(depths, count):
            raise UsageError(f"{what}: {name} has {count} entries and {depths} {counts[depths]}: give one a stage")


def check_ranges(what: str, options: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """Raise `UsageError` for a number, or one of a list, that is not finite or not within its range."""
    for name, value in options.items():
        allowed = ranges.get(name, Range())
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(each, bool) or not (isinstance(each, numbers.Real) or getattr(each, "shape", None) == ()):
                continue
            number = float(each)
            if not (math.isfinite(number) and allowed.has(number)):
                raise UsageError(f"{what}: {name} must be {allowed}, got {number:g}")


def lines_of(build: Callable[..., Any]) -> dict[str, str]:
    """A line about each option of a constructor: its class's own, its bases', then what families share."""
    own: dict[str, str] = {}
    for place in build.__mro__ if inspect.isclass(build) else (build,):
        own = {**documented(place), **own}
    return {option: own.get(option, LINES.get(option, "")) for option in parameters_of(build)[0]}


def documented(build: Callable[..., Any]) -> dict[str, str]:
    """Words and lines under `Args:` in a docstring; a line may go on, further indented."""
    text = inspect.cleandoc(build.__dict__.get("__doc__") or "")
    section = text.partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.split(r"\n(?=\S)", inspect.cleandoc("\n" + section))
    return dict(" ".join(entry.split()).split(": ", 1) for entry in entries if ": " in entry)
