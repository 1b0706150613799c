"""Feature extractors and what they say of their levels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence, Set
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.errors import CapabilityError, OptionError
from imgzoo.features import Feature, FeatureModel, native_key, resolve_indices, scriptable
from imgzoo.features import FeatureInfo as NativeInfo
from imgzoo.model import ImageModel
from imgzoo_timm._door import rooms
from imgzoo_timm.layers._base import natively
from imgzoo_timm.layers._patch_embed import Format

from ._manipulate import checkpoint

__all__ = ["FeatureDictNet", "FeatureGetterNet", "FeatureInfo", "FeatureListNet", "feature_take_indices"]


def feature_take_indices(num_features: int, indices: Any = None, as_set: bool = False) -> tuple[Any, int]:
    """Positions of the levels that `indices` name, and the deepest of them."""
    taken = resolve_indices(num_features, indices)
    return (set(taken) if as_set else taken), max(taken)


class FeatureInfo(NativeInfo):
    """Levels as the field's rows: `num_chs`, `reduction`, `module`, `index`, and what else the rows hold."""

    def __init__(self, feature_info: Iterable[dict[str, Any]], out_indices: Any):
        rows = [dict(row) for row in feature_info]
        super().__init__([Feature(row["num_chs"], row["reduction"], row["module"]) for row in rows])
        self.info = [{**row, "index": row.get("index", i)} for i, row in enumerate(rows)]
        self.out_indices = tuple(resolve_indices(len(rows), out_indices)) if rows else ()

    @classmethod
    def of(cls, native: Any) -> FeatureInfo:
        """Of a native network's levels, or of the rows that a network of a client's own lists."""
        if not isinstance(native, NativeInfo):
            return cls(native, None)
        if isinstance(native, cls):
            return native
        rows = [{"num_chs": each.channels, "reduction": each.reduction, "module": each.module} for each in
                native.levels]  # fmt: skip
        return cls(rows, native.out_indices or None)

    def from_other(self, out_indices: Any) -> FeatureInfo:
        return FeatureInfo(deepcopy(self.info), out_indices)

    def select(self, out_indices: Sequence[int]) -> FeatureInfo:
        return self.from_other(list(out_indices))

    def widened(self, channels: int) -> FeatureInfo:
        return FeatureInfo([{**row, "num_chs": channels} for row in self.info], list(self.out_indices))

    def __getitem__(self, index: Any) -> Any:
        return self.info[index]

    def get(self, key: str, idx: Any = None) -> Any:
        """One value for a level, or a list for several; None for the chosen ones."""
        if idx is None:
            return [self.info[i][key] for i in self.out_indices]
        return [self.info[i][key] for i in idx] if isinstance(idx, (tuple, list)) else self.info[idx][key]

    def get_dicts(self, keys: Sequence[str] | None = None, idx: Any = None) -> Any:
        chosen = self.out_indices if idx is None else idx
        rows = [self.info[i] for i in (chosen if isinstance(chosen, (tuple, list)) else [chosen])]
        rows = [row if keys is None else {key: row[key] for key in keys} for row in rows]
        return rows if isinstance(chosen, (tuple, list)) else rows[0]


def without_head(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What an extractor tells: nothing of a classifier."""
    return {key: each for key, each in cfg.items() if key not in ("num_classes", "classifier", "global_pool")}


def with_same_tensors(model: Any) -> Any:
    """Another network of the same parameters and buffers, which may be pruned."""
    return deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


class ByChildren(torch.fx.Tracer):
    """Traces what calls the children of a module, not into them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


class Extractor(nn.ModuleDict):
    """Images -> the levels of a network; its parts are children under the field's flat names.

    The network itself, which shares the parts, is kept beside them (`network`). With `whole` it is the only child,
    `body`, and keeps all but its classifier.
    """

    paths: dict[str, str]
    """Where the children are in the network; none where it is whole or not of imgzoo."""
    own_info: FeatureInfo | None = None
    """What is said of levels that the network itself does not tell."""
    grad_checkpointing = False

    def __init__(self, model: Any, out_indices: Any, output_fmt: str, whole: bool = False, flat: bool = True):
        super().__init__()
        if not isinstance(model, ImageModel):
            self.take_children(model, out_indices, output_fmt, whole, flat)
            return
        if not whole:  # the caller's keeps its form
            model = with_same_tensors(model)
        native = FeatureModel(model, out_indices, output_fmt, prune=not whole)
        self.__dict__["held"] = (native,)  # not a child: its parts are
        self.output_fmt, self.in_chans, self.out_indices = Format(output_fmt), model.in_chans, native.out_indices
        self.pretrained_cfg = self.default_cfg = without_head(model.pretrained_cfg)
        self.paths = {} if whole else flat_paths(native)
        self.register_load_state_dict_pre_hook(take_forms)
        if whole:
            before = model.state_dict().keys()
            model._behead()
            native.pruned = before - model.state_dict().keys()
            self.body = model
            return
        for name, path in self.paths.items():
            self.add_module(name, model.get_submodule(path))
        for name, parameter in model._parameters.items():
            self.register_parameter(name, parameter)
        for name, buffer in model._buffers.items():
            self.register_buffer(name, buffer, persistent=name not in model._non_persistent_buffers_set)

    def take_children(self, model: Any, out_indices: Any, output_fmt: str, whole: bool, flat: bool) -> None:
        """The same of a network that is not imgzoo's, whose children run one after another, as they stand."""
        self.__dict__["held"] = (SimpleNamespace(model=model),)
        info = FeatureInfo.of(model.feature_info)
        self.out_indices = resolve_indices(len(info), out_indices)
        self.own_info = info.from_other(self.out_indices)
        self.pretrained_cfg = self.default_cfg = getattr(model, "pretrained_cfg", {})
        self.output_fmt, self.paths = Format(output_fmt), {}
        if whole:
            if hasattr(model, "reset_classifier"):
                model.reset_classifier(0)
            self.body = model
            return
        parts = children_in_order(model, flat)
        names = [name.replace(".", "_") if flat else name for name in self.feature_info.module_name()]
        missing = [name for name in names if name not in parts]
        if missing:
            advice = "levels are children of the network, or with flatten_sequential=True of its sequences"
            raise OptionError(f"{type(model).__name__} has no part {', '.join(missing)}: {advice}")
        order = list(parts)
        for name in order[: 1 + max(map(order.index, names))]:
            self.add_module(name, parts[name])

    def own_key(self, key: str) -> str:
        """The key here of a weight of the network."""
        if not self.paths:
            return f"body.{key}"
        inside = (name + key[len(path) :] for name, path in self.paths.items() if key.startswith(f"{path}."))
        return next(inside, key)

    @property
    def network(self) -> Any:
        return self.held[0].model  # type: ignore[index]

    @property
    def feature_info(self) -> Any:
        """The chosen levels, as the network says of them now."""
        return self.held[0].feature_info if self.own_info is None else self.own_info  # type: ignore[index]

    @property
    def return_layers(self) -> dict[str, str]:
        """The name under which each child that is a level is given."""
        rows = self.feature_info.get_dicts()
        given = getattr(self, "out_map", None) or [str(row["index"]) for row in rows]
        return {self.child_of(row["module"]): name for row, name in zip(rows, given)}

    def child_of(self, path: str) -> str:
        """The child that a level's path leads to."""
        return path if path in self._modules else path.replace(".", "_")

    def train(self, mode: bool = True) -> Any:
        for module in (*self.held, self.network):  # type: ignore[misc]
            module.training = mode
        return super().train(mode)

    def joined(self) -> Any:
        """The network with the parts as they are now: clients replace children, and moving replaces parameters."""
        network = self.network
        for name, part in self._modules.items() if self.paths else ():
            path = self.paths[name]
            owner = network.get_submodule(path.rpartition(".")[0])
            owner._modules[path.rpartition(".")[2]] = part
        for table in ("_parameters", "_buffers"):
            getattr(network, table).update(getattr(self, table))
        return network

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable
        if isinstance(self.network, ImageModel):
            self.joined().set_grad_checkpointing(enable)

    def __prepare_scriptable__(self) -> nn.Module:
        """What a tracer makes of the levels: of imgzoo's networks in their native classes, of others child by child."""
        if hasattr(self, "hooks") or "body" in self._modules:
            raise CapabilityError("levels that hooks take do not script: say feature_cls='list' or 'dict'")
        if not isinstance(self.network, ImageModel):
            return scriptable(self, ByChildren())
        self.joined()
        native: Any = natively(self.held[0])  # type: ignore[index]
        native.names = getattr(self, "out_map", [])
        return native.__prepare_scriptable__()

    def levels(self, x: Tensor) -> list[Tensor]:
        if not isinstance(self.network, ImageModel):
            return self.levels_in_order(x)
        self.joined()
        return self.held[0](x)  # type: ignore[index]

    def levels_in_order(self, x: Tensor) -> list[Tensor]:
        """Levels of children that run one after another; of a whole network none, since its modules are hooked."""
        if "body" in self._modules:
            self.body(x)
            return []
        names, found = list(self.return_layers), {}
        for name, part in self._modules.items():
            saved = self.grad_checkpointing and torch.is_grad_enabled()
            x = checkpoint(part, x) if saved else part(x)  # type: ignore[misc]
            if name in names:
                found[name] = x
        return [found[name] for name in names]


def children_in_order(model: nn.Module, flat: bool) -> dict[str, nn.Module]:
    """Children of a network by name; with `flat` those of its sequences instead of them, as `stages_0`."""
    found: dict[str, nn.Module] = {}
    for name, part in model.named_children():
        rows = part.named_children() if flat and isinstance(part, nn.Sequential) else None
        found |= {name: part} if rows is None else {f"{name}_{row}": each for row, each in rows}
    return found


def take_forms(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give keys of the network's other extractors their names here, in place; what no level needs may be missing."""
    own, network = module.state_dict(), module.joined().state_dict().keys()
    known = network | module.held[0].pruned
    for key in [key for key in state if key.startswith(prefix) and key[len(prefix) :] not in own]:
        plain = native_key(key[len(prefix) :], known)
        if plain is not None:
            weight = state.pop(key)
            if plain in network:
                state[prefix + module.own_key(plain)] = weight
    missing = {plain: key for plain in network if prefix + (key := module.own_key(plain)) not in state}
    if missing and not module.paths:
        needed = needed_keys(module.network, module.out_indices)
        state.update({prefix + key: own[key] for plain, key in missing.items() if plain not in needed})


def needed_keys(model: ImageModel, indices: Sequence[int]) -> Set[str]:
    """Keys of what levels of a whole network need."""
    return FeatureModel(with_same_tensors(model), indices).model.state_dict().keys()


class FeatureListNet(Extractor):
    """Images -> list of levels; children of imgzoo's networks are named as the family's in the field, and
    `flatten_sequential` is for others, whose levels are rows of sequences."""

    def __init__(self, model: nn.Module, out_indices: Any = (0, 1, 2, 3, 4), output_fmt: str = "NCHW",
                 feature_concat: bool = False, flatten_sequential: bool = False):  # fmt: skip
        if feature_concat:
            raise OptionError("levels are not joined here: leave feature_concat out")
        super().__init__(model, out_indices, output_fmt, flat=flatten_sequential)

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.levels(x)


class FeatureDictNet(Extractor):
    """The same by name: those of `out_map`, or the modules'."""

    def __init__(self, model: nn.Module, out_indices: Any = (0, 1, 2, 3, 4), out_map: Any = None,
                 output_fmt: str = "NCHW", feature_concat: bool = False, flatten_sequential: bool = False):  # fmt: skip
        if feature_concat:
            raise OptionError("levels are not joined here: leave feature_concat out")
        super().__init__(model, out_indices, output_fmt, flat=flatten_sequential)
        self.out_map = list(out_map or map(str, self.out_indices))

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(zip(self.out_map, self.levels(x)))


class ExpansionListNet(FeatureListNet):
    """Images -> what the last block of each level's stage gives its last convolution, which narrows it."""

    BEFORE = {"conv_pwl": "forward_pre", "conv_pw": "forward_pre", "bn1": "forward"}
    """Where blocks are widest: the first of these that a block has."""

    def __init__(self, model: Any, out_indices: Any, output_fmt: str):
        from ._extract import FeatureHooks

        super().__init__(model, out_indices, output_fmt)
        model = self.network
        rows = deepcopy(self.feature_info.info)
        for i in self.feature_info.out_indices:
            stage = rows[i]["module"]
            parts = dict(model.get_submodule(stage).named_children()) if stage.startswith("blocks.") else {}
            last = next(reversed(parts), "")
            word = next((each for each in self.BEFORE if last and hasattr(parts[last], each)), None)
            if word is None:
                raise OptionError(f"level {i} of this network ({stage}) has no expansion: leave it out of out_indices, "
                                  "or say feature_location='bottleneck'")  # fmt: skip
            part = getattr(parts[last], word)
            width = getattr(part, "in_channels", None) or part.num_features
            rows[i] |= {"module": f"{stage}.{last}.{word}", "num_chs": width, "hook_type": self.BEFORE[word]}
        self.own_info = FeatureInfo(rows, list(self.feature_info.out_indices))
        self.hooks = FeatureHooks(self.feature_info.get_dicts(), model.named_modules())

    def levels(self, x: Tensor) -> list[Tensor]:
        super().levels(x)
        return list(self.hooks.get_output(x.device).values())


KEPT = {"gemma4_vit": ("std_bias", "std_scale", "encoder.std_bias", "encoder.std_scale")}
"""Buffers of a family's extractors in the field that no level needs."""


def keep_spare(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let what no level needs be missing in a state."""
    for name in module.kept:
        owner, _, last = name.rpartition(".")
        state.setdefault(f"{prefix}model.{name}", getattr(module.model.get_submodule(owner), last))


class FeatureGetterNet(FeatureModel):
    """Images -> levels of a network that keeps its own form: keys begin with `model.`."""

    def __init__(self, model: Any, out_indices: Any = 4, out_map: Any = None, return_dict: bool = False,
                 output_fmt: str = "NCHW", norm: bool = False, prune: bool = True):  # fmt: skip
        native = isinstance(model, ImageModel)
        if not native:
            model.feature_info = FeatureInfo.of(model.feature_info)
        buffers = dict(model.named_buffers())
        kept = {name: buffers[name] for name in KEPT.get(family_of(model), ()) if name in buffers}
        super().__init__(model, out_indices, "NCHW", prune=False)
        self.norm = norm and native
        if prune:
            self.prune()
        if output_fmt not in ("NCHW", "NHWC", "NLC"):
            raise OptionError(f"output_fmt is NCHW, NHWC or NLC, not {output_fmt!r}")
        self.out_map, self.return_dict = out_map, return_dict
        self.output_fmt = Format(output_fmt)
        self.pretrained_cfg = self.default_cfg = without_head(model.pretrained_cfg)
        self.in_chans = getattr(model, "in_chans", None)
        for name, each in kept.items():
            path, _, last = name.rpartition(".")
            model.get_submodule(path).register_buffer(last, each)
        self.kept = tuple(kept)
        self.register_load_state_dict_pre_hook(keep_spare)

    def forward(self, x: Tensor) -> Any:
        fmt = "NLC" if self.output_fmt == "NLC" else "NCHW"
        maps = self.model.forward_intermediates(x, self.out_indices, norm=self.norm, output_fmt=fmt,
                                                intermediates_only=True)  # fmt: skip
        if self.output_fmt == "NHWC":
            maps = [each.permute(0, 2, 3, 1) for each in maps]
        if not self.return_dict:
            return maps
        return OrderedDict(zip(self.out_map or [str(i) for i in self.out_indices], maps))


def flat_paths(native: FeatureModel) -> dict[str, str]:
    """Where the parts of a network are, by the flat names that the field gives them."""
    rows, paths = native.flat_rows(), {}
    for name, part in native.model.named_children():
        inside = {f"{name}_{key}": f"{name}.{key}" for key, _ in part.named_children()}
        paths |= inside if name in rows else {name: name}
    return paths


def family_of(model: Any) -> str:
    return type(model).__module__.rpartition(".")[2]


def __getattr__(name: str) -> Any:
    """What the field's path of this name has, too, and other files here."""
    return rooms[__name__.rpartition(".")[0]].find(name)
