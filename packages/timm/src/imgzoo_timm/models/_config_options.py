"""Configurations of the field's networks as options of imgzoo's.

A field that a network of imgzoo has not stands in a table of what it may be; anything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import imgzoo
from imgzoo.errors import OptionError
from imgzoo.spelling import translated
from imgzoo_layers.util import make_divisible
from imgzoo_timm.layers._helpers import to_2tuple

Options = dict[str, Any]


def told(cfg: Any, same: str = "", names: Mapping[str, str] | None = None,
         only: Mapping[str, Sequence[Any]] | None = None, read: str = "") -> Options:  # fmt: skip
    """Options of a configuration: fields `same` as here, fields under other `names`; `read` are read elsewhere.

    Raises:
        OptionError: a field has a value that is not among those of `only`.
    """
    words, options = dict.fromkeys(same.split()), Options()
    for each in fields(cfg):
        name, value = each.name, getattr(cfg, each.name)
        if name in (only or {}):
            if value not in (only or {})[name]:
                allowed = ", ".join(map(str, (only or {})[name]))
                raise OptionError(f"{type(cfg).__name__}: {name} is {allowed} in imgzoo's networks, not {value}")
        elif name in words or name in (names or {}):
            options[(names or {}).get(name, name)] = value
        elif name not in read.split():
            raise OptionError(f"{type(cfg).__name__} of imgzoo's networks has no {name}")
    return options


def each_alike(cfg: Any, values: Any, name: str) -> Any:
    """The one value of several."""
    values = list(values)
    if any(value != values[0] for value in values):
        raise OptionError(f"{type(cfg).__name__}: {name} is one for all here, not {', '.join(map(str, values))}")
    return values[0]


POOLS = {"maxpool": "max", "max": "max", "avg2": "avg", "": None, None: None}
ATTENTION = {"dim_head": "head_dim", "num_heads": "heads", "block_size": "block", "halo_size": "halo",
             "qk_ratio": "qk_ratio", "r": "r", "qkv_bias": "qkv_bias", "avg_down": "avg_down",
             "scale_pos_embed": "scale_pos"}  # fmt: skip


def byob(cfg: Any) -> Options:
    """A table of blocks."""
    options = told(
        cfg, "zero_init_last act_layer norm_layer", only={"head_type": ("classifier", "mlp", "attn_abs", "attn_rot")},
        read="blocks downsample stem_type stem_pool stem_chs width_factor fixed_input_size aa_layer head_hidden_size "
             "num_features "
             "attn_layer attn_kwargs self_attn_layer self_attn_kwargs block_kwargs")  # fmt: skip
    stages = [list(row) if isinstance(row, (tuple, list)) else [row] for row in cfg.blocks]
    made = [byob_stage(cfg, rows) for rows in stages]
    options |= {key: [row[key] for row in made] for key in made[0] if key not in ("branches", "flags")}
    options["branches"] = each_alike(cfg, (row["branches"] for row in made), "num_conv_branches")
    options |= each_alike(cfg, (row["flags"] for row in made), "block_kwargs")
    gates = [row.attn_layer or cfg.attn_layer for rows in stages for row in rows for _ in range(row.d)]
    kwargs = [row.attn_kwargs or cfg.attn_kwargs for rows in stages for row in rows]
    options["gate_after"] = next((i for i, gate in enumerate(gates) if gate), 0)
    options["gate"] = each_alike(cfg, gates[options["gate_after"] :], "attn_layer")
    gated = dict(next((each for each in kwargs if each), None) or {})
    if "block_size" in gated:
        gated["blocks"] = gated.pop("block_size")
    options["gate_options"] = gated or None
    options["stem"], options["stem_width"] = byob_stem(cfg)
    options["stem_pool"] = POOLS[cfg.stem_pool] if cfg.stem_type not in ("rep", "one") else None
    options["downsample"] = cfg.downsample or None
    options["num_features"] = round(cfg.num_features * cfg.width_factor)
    if cfg.aa_layer:
        options["aa_layer"] = cfg.aa_layer
    options["head_hidden"] = cfg.head_hidden_size if cfg.head_type == "mlp" else 0
    options["head_norm"] = cfg.head_type == "mlp"
    options["attention_pool"] = {"attn_abs": True, "attn_rot": "rotary"}.get(cfg.head_type, False)
    return options


def byob_stage(cfg: Any, rows: list[Any]) -> Options:
    """Options of one stage, whose blocks take turns."""
    extra = [{**cfg.block_kwargs, **(row.block_kwargs or {})} for row in rows]
    kinds = [byob_kind(row, more, place) for row, more in zip(rows, extra) for place in range(row.d)]
    if any(kind.startswith("mobilevit") for kind in kinds):
        raise OptionError("ByoBlockCfg: imgzoo.create_model('mobilevit_s', ...) makes blocks of MobileViT by options")
    layer, attention = byob_attention(cfg, [row for row in rows if row.type == "self_attn"])
    grouped = not kinds[0].startswith(("one", "rep"))  # those say by their kind how many groups they have
    return {
        "blocks": " ".join(kinds) if len(set(kinds)) > 1 else kinds[0], "depths": len(kinds), "strides": rows[0].s,
        "dims": make_divisible(rows[-1].c * cfg.width_factor),
        "bottle_ratio": each_alike(cfg, (row.br for row in rows), "br"),
        "group_size": each_alike(cfg, (row.gs or 0 for row in rows), "gs") if grouped else 0,
        "self_attn": layer, "self_attn_options": attention,
        "branches": each_alike(cfg, (more.get("num_conv_branches", 1) for more in extra), "num_conv_branches"),
        "flags": each_alike(cfg, map(byob_flags, extra), "block_kwargs"),
    }  # fmt: skip


def byob_flags(more: Options) -> Options:
    """What `block_kwargs` say of residual blocks."""
    known = ("bottle_in", "extra_conv", "kernel_size", "linear_out", "num_conv_branches")
    unknown = [key for key in more if key not in known]
    if unknown or bool(more.get("bottle_in")) != bool(more.get("linear_out")):
        raise OptionError(f"block_kwargs are {', '.join(known)} here, bottle_in and linear_out together, not {more}")
    flags = {"extra_conv": more.get("extra_conv"), "inverted": more.get("linear_out")}
    return {key: True for key, value in flags.items() if value}


def byob_attention(cfg: Any, rows: list[Any]) -> tuple[str | None, Options | None]:
    """Attention of a stage by its name here, and its options."""
    if not rows:
        return None, None
    layer = each_alike(cfg, (row.self_attn_layer or cfg.self_attn_layer for row in rows), "self_attn_layer")
    given = each_alike(cfg, (row.self_attn_kwargs or cfg.self_attn_kwargs for row in rows), "self_attn_kwargs")
    if layer == "lambda" and given and given.get("r", 0) is None:
        return "lambda_global", None
    return layer, {renamed(key): value for key, value in given.items()} if given else None


def byob_kind(row: Any, more: Options, place: int) -> str:
    """A block of a row by its name here, where that says its groups and kernel."""
    size: Any = row.gs(row.c, place) if callable(row.gs) else row.gs
    if row.type == "rep" and size:
        return {1: "rep", 4: "rep4"}.get(int(row.c) // size) or refuse_groups(row)
    if row.type == "one" and more.get("kernel_size", 3) == 1:
        return "one_pw"
    return "one_dw" if row.type == "one" and size == 1 else row.type


def refuse_groups(row: Any) -> str:
    raise OptionError(f"ByoBlockCfg: blocks of RepVGG have one group or four here, not gs={row.gs}")


def renamed(word: str) -> str:
    if word not in ATTENTION:
        raise OptionError(f"self_attn_kwargs are {', '.join(ATTENTION)} here, not {word}")
    return ATTENTION[word]


def byob_stem(cfg: Any) -> tuple[str, int]:
    """Kind and width of a stem; widths of several are those of a kind."""
    from imgzoo_archs_cnn.byobnet import STEM

    if not isinstance(cfg.stem_chs, (tuple, list)):
        first = cfg.blocks[0][0] if isinstance(cfg.blocks[0], (tuple, list)) else cfg.blocks[0]
        return cfg.stem_type, round((cfg.stem_chs or first.c) * cfg.width_factor)
    widths = tuple(round(each * cfg.width_factor) for each in cfg.stem_chs)
    for kind, row in STEM.items():
        if row.kernel == 3 and not row.bare and tuple(int(widths[-1] * width) for width in row.widths) == widths:
            return kind, widths[-1]
    raise OptionError(f"ByoModelCfg: no stem has the channels {widths}: stem_type is one of {', '.join(STEM)}")


def maxx(cfg: Any) -> Options:
    """Convolution and attention blocks."""
    conv, attn = cfg.conv_cfg, cfg.transformer_cfg
    convnext = conv.block_type == "convnext"
    options = told(cfg, "depths stem_bias", {"embed_dim": "dims", "head_hidden_size": "head_hidden"},
                   read="block_type stem_width conv_cfg transformer_cfg weight_init")  # fmt: skip
    options |= told(
        conv, "expand_output pre_norm_act padding",
        {"output_bias": "conv_bias", "attn_early": "gate_early", "attn_act_layer": "gate_act",
         "attn_ratio": "gate_ratio", "act_layer": "act"},
        {"expand_ratio": (4.0,), "kernel_size": (3, 7) if convnext else (3,), "group_size": (1,), "attn_layer": ("se",),
         "stride_mode": ("dw", "pool"), "block_type": ("mbconv", "convnext")},
        "pool_type downsample_pool_type init_values norm_layer norm_layer_cl norm_eps")  # fmt: skip
    options["conv"], options["pool_stride"] = conv.block_type, conv.stride_mode == "pool"
    options |= {"conv_scale": conv.init_values} if convnext else {}
    options |= {"eps": conv.norm_eps} if conv.norm_eps is not None and not convnext else {}
    options |= told(
        attn, "head_first expand_first shortcut_bias rel_pos_dim",
        {"rel_pos_type": "rel_pos", "init_values": "layer_scale", "act_layer": "attn_act", "norm_layer": "attn_norm",
         "norm_eps": "attn_eps"},
        {"dim_head": (32,), "expand_ratio": (4.0,), "attn_bias": (True,), "attn_drop": (0.0,), "proj_drop": (0.0,),
         "partition_ratio": (32,), "window_size": (None, ()), "grid_size": (None, ()), "use_nchw_attn": (False,)},
        "pool_type no_block_attn norm_layer_cl")  # fmt: skip
    options["block_attn"], options["pool"] = not attn.no_block_attn, attn.pool_type
    options["blocks"] = [" ".join(kinds) if isinstance(kinds, (tuple, list)) else kinds for kinds in cfg.block_type]
    options["stem_dims"] = to_2tuple(cfg.stem_width)
    options["init"] = "normal" if cfg.weight_init == "normal" else "fans"
    return options


def norm_free(cfg: Any) -> Options:
    """NFNet, NF-ResNet and NF-RegNet."""
    options = told(
        cfg, "depths channels stem_type group_size bottle_ratio num_features reg extra_conv act_layer alpha "
        "zero_init_fc",
        {"width_factor": "width", "attn_layer": "gate", "gamma_in_act": "original", "attn_gain": "gate_gain",
         "ch_div": "divisor", "std_conv_eps": "eps"},
        {"same_padding": (cfg.gamma_in_act,), "skipinit": (cfg.gamma_in_act,)}, "stem_chs attn_kwargs")  # fmt: skip
    options["stem_width"] = cfg.stem_chs or cfg.channels[0]
    more = dict(cfg.attn_kwargs or {})
    options["gate_ratio"] = more.pop("rd_ratio", None)
    if more.pop("rd_divisor", 8) != 8 or more:
        raise OptionError(f"NfCfg: attn_kwargs have rd_ratio here, not {cfg.attn_kwargs}")
    return options


def regnet(cfg: Any) -> Options:
    """The quantized linear rule."""
    options = told(cfg, " ".join(each.name for each in fields(cfg)))
    return {**options, "downsample": cfg.downsample or None}


def multi_scale(cfg: Any) -> Options:
    """MViT v2."""
    options = told(
        cfg, "depths embed_dim num_heads mlp_ratio expand_attn qkv_bias", {"use_cls_token": "class_token"},
        {"pool_first": (False,), "use_abs_pos": (False,), "residual_pooling": (True,), "mode": ("conv",),
         "kernel_qkv": ((3, 3),), "stride_q": (((1, 1), (2, 2), (2, 2), (2, 2)),), "patch_kernel": ((7, 7),),
         "patch_stride": ((4, 4),), "patch_padding": ((3, 3),), "rel_pos_type": ("spatial",), "act_layer": ("gelu",),
         "norm_layer": ("layernorm",), "norm_eps": (1e-6,)}, "stride_kv stride_kv_adaptive pool_type")  # fmt: skip
    return {**options, "stride_kv": [each_alike(cfg, stride, "stride_kv") for stride in cfg.stride_kv]}


def naflex(cfg: Any) -> Options:
    """Patches of images of any shape: the words of a configuration are those of names."""
    drawn = {"weight_init": ("", "jax", "moco", "reset"), "fix_init": (True, False)}
    told(cfg, " ".join(each.name for each in fields(cfg)), only={
        **drawn, "fc_norm": (None, cfg.global_pool == "avg"), "input_norm_layer": (None,), "block_fn": (None,),
        "mlp_layer": (None,)})  # fmt: skip
    named = {each.name: getattr(cfg, each.name) for each in fields(cfg) if each.name not in drawn}
    given = {name: value for name, value in named.items() if value is not None or name == "init_values"}
    return translated(imgzoo.get_spec("naflexvit_base_patch16_gap"), given)


CONFIGS: dict[str, Callable[[Any], Options]] = {
    "ByobNet": byob, "MaxxVit": maxx, "NFNet": norm_free, "RegNet": regnet, "MultiScaleVit": multi_scale,
    "NaFlexViT": naflex,
}  # fmt: skip
"""What reads the configuration of a network of imgzoo, by its class."""


def options_of(native: type, cfg: Any, given: Mapping[str, Any]) -> Options:
    """Options of a network by its configuration, fields of which may be given anew beside it."""
    if native.__name__ not in CONFIGS:
        raise OptionError(f"{native.__name__} takes its options by name here")
    if not is_dataclass(cfg) or isinstance(cfg, type):
        raise OptionError(f"{native.__name__} is built from a configuration, or from options by name, not from {cfg!r}")
    own = {each.name for each in fields(cfg)}
    cfg = replace(cfg, **{key: value for key, value in given.items() if key in own})
    return {**CONFIGS[native.__name__](cfg), **{key: value for key, value in given.items() if key not in own}}
