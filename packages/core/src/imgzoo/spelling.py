"""Constructor options in the field's spelling, translated into the constructor's own. No torch.

`WORDS` holds what means the same in every family. A family's catalog file adds its own under `"spelling"`:

    "norm_eps": "eps"                                another word, the same value
    "focal_levels": ["focal_level"]                  one value for all stages, given once for each
    "block_fn": {"ResPostBlock": {"block": "res_post"}, "Block": {}}    what each value stands for
    "block_args": {"*": "*"}                         a table whose items are options themselves
    "attn_kwargs": {"*": "attn_options.*", "num_heads": "heads"}     a table here, too, some items by other words
    "use_rope": {"true": {"rope?": "axial"}}         what nothing else says: neither another word nor the row

In a table of values `"*"` is the word that takes every other value. Values are written as JSON writes them, classes and
functions by their name, `functools.partial` as `Name(keyword=value)`.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from .errors import OptionError
from .options import Parameters, exchanges_of, parameters_of
from .specs import ModelSpec

WORDS: dict[str, tuple[str, ...]] = {
    "aa_layer": ("aa",),
    "act_layer": ("act",),
    "block_config": ("depths",),
    "block_reduce_first": ("reduce_first",),
    "bn_eps": ("eps",),
    "depth_list": ("depths",),
    "down_kernel_size": ("down_kernel",),
    "drop_connect_rate": ("drop_path_rate",),
    "growth_rate": ("growth",),
    "head_hidden_size": ("head_hidden",),
    "init_values": ("layer_scale",),
    "kernel_size": ("kernel",),
    "kernel_sizes": ("kernels",),
    "layer_scale_init_value": ("layer_scale",),
    "layers": ("depths",),
    "layerscale_value": ("layer_scale",),
    "ls_init_value": ("layer_scale",),
    "mlp_layer": ("mlp",),
    "norm_eps": ("eps",),
    "norm_layer": ("norm",),
    "norm_layer_cl": ("token_norm",),
    "num_reg_tokens": ("reg_tokens",),
    "pad_type": ("padding",),
    "rope_temperature": ("rope_theta",),
    "se_from_exp": ("gate_from_expanded",),
    "se_layer": ("gate",),
    "stem_kernel_size": ("stem_kernel",),
    "stem_type": ("stem",),
    "use_abs_pos_emb": ("abs_pos",),
    "use_fc_norm": ("fc_norm",),
    "use_grn": ("grn",),
    "use_post_norm": ("post_norm",),
    "width_list": ("widths",),
    "width_mult": ("width",),
}
"""The field's words and what a constructor calls each; none is touched where the constructor takes the word itself."""

EVO_NORMS = [f"evonorm{kind}" for kind in ("b0", "b1", "b2", "s0", "s0a", "s1", "s1a", "s2", "s2a")]
NAMES: dict[str, dict[str, str]] = {
    "act": {
        **{name: name for name in ("relu", "relu6", "elu", "celu", "selu", "prelu", "silu", "mish", "gelu", "sigmoid",
                                   "tanh", "identity")},
        "swish": "silu", "leakyrelu": "leaky_relu", "quickgelu": "quick_gelu", "gelutanh": "gelu_tanh",
        "gelu(approximate=tanh)": "gelu_tanh", "hardswish": "hard_swish", "hardsigmoid": "hard_sigmoid",
        "hardmish": "hard_mish",
    },
    "norm": {
        **{name: name for name in ("batchnorm", "groupnorm", "groupnorm1", "layernorm", "layernorm2d", "rmsnorm",
                                   "rmsnorm2d", "simplenorm", "simplenorm2d", "frn", "frntlu",
                                   *EVO_NORMS)},
        "batchnorm2d": "batchnorm",
        **{name: name for name in ("batchnormact2d", "groupnormact", "groupnorm1act", "layernormact2d",
                                   "rmsnormact2d")},
        **{name.replace("norm", "norm2d"): name for name in EVO_NORMS}, "filterresponsenormact2d": "frn",
        "filterresponsenormtlu2d": "frntlu",
    },
    "gate": {
        **{name: name for name in ("se", "ese", "eca", "ceca", "ge", "gc", "gca", "bat", "cbam", "lcbam", "coord",
                                   "scoord", "ela", "strip", "nl")},
        "semodule": "se", "squeezeexcite": "se", "effectivesemodule": "ese", "ecamodule": "eca", "cecamodule": "ceca",
        "globalcontext": "gc", "gatherexcite": "ge", "cbammodule": "cbam", "lightcbammodule": "lcbam",
        "coordattn": "coord", "simplecoordattn": "scoord", "efficientlocalattn": "ela", "stripattn": "strip",
        "nonlocalattn": "nl", "batnonlocalattn": "bat",
    },
    "aa": {"avg": "avg", "avgpool": "avg", "avgpool2d": "avg", "blur": "blur", "blurpool": "blur",
           "blurpool2d": "blur", "blurpc": "blurpc"},
    "mlp": {"mlp": "mlp", "swiglu": "swiglu", "glumlp(gatelast=false)": "glu", "swiglupacked": "glu",
            "geglumlp": "geglu", "geglu": "geglu"},
}  # fmt: skip
NAMES |= {"token_norm": NAMES["norm"], **dict.fromkeys(("attn_act", "dw_act", "mlp_act"), NAMES["act"])}
"""What the field calls a part, in small letters without `_`, and its name here, by the option that takes it."""
CARRIED = {
    "norm": {"eps": "eps", "group_size": "norm_group"},
    "token_norm": {"eps": "token_eps"},
    "gate": {"rd_ratio": "gate_ratio", "gate_layer": "gate_fn", "force_act_layer": "gate_act"},
    "mlp": {"act_layer": ""},  # a block tells its mlp the activation anyway
}
"""Keywords of a `partial` that are options of their own here; with "" they have no effect in the field either."""
JSON = ("true", "false", "null")
"""Values in tables of values that are no words."""
PARTS = ("act", "attn_act", "dw_act", "gate", "mlp_act", "norm", "token_norm")
"""Options that take a class of the user's, too."""
EPS = {
    **dict.fromkeys(("layernorm", "layernorm2d", "rmsnorm", "rmsnorm2d", "rmsnormact2d", "simplenorm", "simplenorm2d"),
                    1e-6),
    **dict.fromkeys(("evonormb0", "evonorms0a", "evonorms1a", "evonorms2a"), 1e-3),
}  # fmt: skip
"""Epsilon of a norm that is named without one; of every other 1e-5."""


def translated(spec: ModelSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the constructor calls them; those it does not know in either spelling are left as they are.

    Raises:
        OptionError: one option is given by two words, or a value has no counterpart.
    """
    if not given:
        return {}
    parameters, _ = parameters_of(spec.load())
    options: dict[str, Any] = {}
    implied: dict[str, Any] = {}
    told: dict[str, str] = {}
    for word, value in given.items():
        for option, setting in _settings(spec, parameters, word, value, implied):
            if told.setdefault(option, word) != word:
                raise OptionError(f"{spec.name}: {told[option]} and {word} both say {option}; give one of them")
            options[option] = setting
    row = {key: each for key, each in implied.items() if key in spec.kwargs or each != parameters[key].default}
    return {**row, **options}


def _settings(
    spec: ModelSpec, parameters: Parameters, word: str, value: Any, implied: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """The options that one word stands for; those that it sets back to their defaults go into `implied`."""
    entry = spec.spelling.get(word)
    if isinstance(entry, dict):
        text = written(value)
        if entry.get("*", "").endswith("*"):
            yield from _of_table(spec, parameters, word, value, implied)
            return
        if text in entry:
            weak = {each[:-1]: setting for each, setting in entry[text].items() if each.endswith("?")}
            implied |= {each: setting for each, setting in weak.items() if each not in spec.kwargs}
            yield from ((each, setting) for each, setting in entry[text].items() if each[:-1] not in weak)
            return
        entry = word if word in parameters else entry.get("*")
        if entry is None:
            raise _no_counterpart(spec, word, text, spec.spelling[word])
    elif isinstance(entry, list):
        entry = entry[0]
        if isinstance(value, list | tuple):
            if len({*map(written, value)}) != 1:
                raise OptionError(f"{spec.name} takes one {entry} for all stages, not {word}={written(value)}")
            value = value[0]
    elif entry is None and word not in parameters:
        entry = next((each for each in WORDS.get(word, ()) if each in parameters), word)
    if entry in (None, word):
        yield word, value
    else:
        yield from _part(spec, parameters, word, entry, value, implied)


def _of_table(
    spec: ModelSpec, parameters: Parameters, word: str, table: Any, implied: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """The options that stand in a table, or the one that is a table here, too."""
    inner: Mapping[str, str] = spec.spelling[word]
    option = _table_of(inner)
    if not isinstance(table, Mapping):
        raise OptionError(f"{spec.name} takes {word} as a table of options, not {written(table)}")
    if isinstance(spec.kwargs.get(option), list | tuple):
        raise OptionError(f"{spec.name} has {option} of its own for each stage: give {option}, not {word}")
    if option:
        yield option, {inner.get(each, each): value for each, value in table.items()}
        return
    for each, value in table.items():
        yield from _settings(spec, parameters, each, value, implied)


def _table_of(entry: Any) -> str:
    """The option that is a table here, where a word is one."""
    whole = entry.get("*", "") if isinstance(entry, dict) else ""
    return whole[:-2] if whole.endswith(".*") else ""


def _part(
    spec: ModelSpec, parameters: Parameters, word: str, option: str, value: Any, implied: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """An option whose value may be the name, the class or the `partial` of a part."""
    names = NAMES.get(option)
    if names is None or not (isinstance(value, str) or callable(value)):
        yield option, value
        return
    exchange: Any = exchanges_of(spec.load()).get(option)
    taken = parameters if exchange is None else {*parameters} & {*exchange.options}
    carried = {key: each for key, each in CARRIED.get(option, {}).items() if not each or each in taken}
    brought = {key: each for key, each in _bound(value).items() if key in carried}
    name = names.get(plain(written(value, but=brought)))
    if name is None and option not in PARTS:
        raise _no_counterpart(spec, word, written(value), names)
    acts = getattr(spec.load(), "norms_act", False)
    if name == "layernorm2d" and acts is None and "eps" not in _bound(value):
        raise OptionError(f"{spec.name}: {word}={written(value)} has one epsilon before activations in the field, and "
                          f"another elsewhere: give one for all, as {word}=partial(LayerNorm2d, eps=1e-6), or say "
                          f"{option}={name!r}")  # fmt: skip
    table = spec.spelling.get(word)
    settings = table.get(name) if isinstance(table, dict) else None
    yield from (settings or {option: name or value}).items()
    for key, each in brought.items():
        if carried[key]:
            yield carried[key], NAMES["act"].get(plain(written(each)), each)
    for key, each in carried.items():
        if key == "eps" and key not in brought:
            of_torch = getattr(value, "__module__", "").startswith("torch.")
            usual = 1e-5 if name == "layernorm2d" and acts else EPS.get(name or "", 1e-5)
            implied[each] = 1e-5 if of_torch else usual if name else _own_eps(value)
        elif each and key not in brought:
            implied[each] = parameters[each].default


def _bound(part: Any) -> dict[str, Any]:
    """The arguments that a `partial` binds, each by its name."""
    if not isinstance(part, partial) or not part.args:
        return getattr(part, "keywords", {})
    try:
        names = [*inspect.signature(part.func).parameters]
    except (TypeError, ValueError):  # of C
        names = []
    names += map(str, range(len(names), len(part.args)))
    return {**dict(zip(names, part.args)), **part.keywords}


def _own_eps(norm: Any) -> float | None:
    """The epsilon of a class of the user's that is given without one; None where it takes none."""
    try:
        own = inspect.signature(norm).parameters["eps"].default
    except KeyError:
        return None
    except (TypeError, ValueError):
        return 1e-5
    return own if isinstance(own, float) else 1e-5


def spoken(spec: ModelSpec, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options that change the row of a model, in the words of `spec.field`, and the others as they are.

    `translated` makes of the words what was given, with nothing else beside it.
    """
    parameters, _ = parameters_of(spec.load())
    row = {**{key: each.default for key, each in parameters.items()}, **spec.kwargs}
    said: dict[str, Any] = {}
    unsaid = dict(options)
    changed = [key for key, value in options.items() if key not in row or written(row[key]) != written(value)]
    for option in sorted(changed, key=CARRIED.__contains__):  # what a part implies is said before the part
        for word, value in _backwards(spec, parameters, option, options[option]):
            if _means(spec, {**said, word: value}, option, {**row, **options}):
                said[word] = value
                del unsaid[option]
                break
    return said, unsaid


def _means(spec: ModelSpec, words: Mapping[str, Any], option: str, wanted: Mapping[str, Any]) -> bool:
    """Whether words say an option, and no other than `wanted`."""
    try:
        back = translated(spec, words)
    except OptionError:
        return False
    return option in back and all(written(wanted[key]) == written(each) for key, each in back.items())


def _backwards(spec: ModelSpec, parameters: Parameters, option: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Words that may say one option, each with its value; classes have no name that a file could hold."""
    for word in sorted(spec.field):
        entry = spec.spelling.get(word)
        if entry == option or (entry is None and (word == option or option in WORDS.get(word, ()))):
            yield word, value
        if isinstance(entry, dict) and _table_of(entry) == option and isinstance(value, Mapping):
            theirs = {each: name for name, each in entry.items()}
            yield word, {theirs.get(each, each): setting for each, setting in value.items()}
        for text, settings in entry.items() if isinstance(entry, dict) and not _table_of(entry) else ():
            if settings == option:
                yield word, value
            elif settings == {option: value} and text[:1] == text[:1].lower() != "[":
                yield word, json.loads(text) if text in JSON else text


def _no_counterpart(spec: ModelSpec, word: str, text: str, known: Iterable[str]) -> OptionError:
    return OptionError(f"{spec.name} has no counterpart of {word}={text}; it knows {', '.join(known)}")


def plain(name: str) -> str:
    return name.lower().replace("_", "")


def written(value: Any, but: Iterable[str] = ()) -> str:
    """A value as a table of values names it; of a `partial` the keywords in `but` are left out."""
    if isinstance(value, partial):
        keywords = [f"{key}={written(each)}" for key, each in sorted(_bound(value).items()) if key not in but]
        return written(value.func) + (f"({', '.join(keywords)})" if keywords else "")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    return value if isinstance(value, str) else getattr(value, "__name__", repr(value))


def field_words(spec: ModelSpec, parameters: Parameters) -> dict[str, list[str]]:
    """The field's words for each option of a constructor, where they differ from its own."""
    words: dict[str, list[str]] = {}
    for word in sorted({*WORDS, *spec.spelling}):
        for option in _targets(spec.spelling.get(word), word, parameters):
            if option in parameters and option != word:
                words.setdefault(option, []).append(word)
    return words


def _targets(entry: Any, word: str, parameters: Parameters) -> set[str]:
    if option := _table_of(entry):
        return {option}
    if isinstance(entry, dict):
        tables = (settings for settings in entry.values() if isinstance(settings, dict))
        inner = {option.removesuffix("?") for settings in tables for option in settings}
        return inner | ({entry["*"]} if "*" in entry else set())
    if isinstance(entry, list):
        return set(entry)
    if entry is not None:
        return {entry}
    return set() if word in parameters else {next((each for each in WORDS[word] if each in parameters), word)}


def near_words(spec: ModelSpec, parameters: Parameters, word: str) -> list[str]:
    """Options, in either spelling, that a mistyped word may have meant."""
    theirs = (each for words in field_words(spec, parameters).values() for each in words)
    return difflib.get_close_matches(word, [*parameters, *theirs], n=3, cutoff=0.7)
