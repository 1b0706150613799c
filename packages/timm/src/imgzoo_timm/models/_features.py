"""Feature extractors and what they say of their levels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from imgzoo.errors import OptionError
from imgzoo.features import Feature, FeatureModel, default_out_indices, resolve_indices
from imgzoo.features import FeatureInfo as NativeInfo
from imgzoo_archs_efficientnet.trunk import MobileTrunk
from imgzoo_timm.layers._patch_embed import Format

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
    def of(cls, native: NativeInfo) -> FeatureInfo:
        rows = [{"num_chs": each.channels, "reduction": each.reduction, "module": each.module} for each in
                native.levels]  # fmt: skip
        return cls(rows, native.out_indices or None)

    def from_other(self, out_indices: Any) -> FeatureInfo:
        return FeatureInfo(deepcopy(self.info), out_indices)

    def select(self, out_indices: Sequence[int]) -> FeatureInfo:
        return self.from_other(list(out_indices))

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


class Extractor(nn.ModuleDict):
    """Images -> the levels of a network; its parts are children under the field's flat names.

    The network itself, which shares the parts, is kept beside them (`network`). With `whole` it is the only child,
    `body`, and keeps all but its classifier.
    """

    def __init__(self, model: Any, out_indices: Any, output_fmt: str, whole: bool = False):
        super().__init__()
        native = FeatureModel(model, out_indices, output_fmt, prune=not whole)
        self.__dict__["held"] = (native,)  # not a child: its parts are
        self.feature_info = native.feature_info
        self.output_fmt, self.in_chans, self.out_indices = Format(output_fmt), model.in_chans, native.out_indices
        self.pretrained_cfg = self.default_cfg = model.pretrained_cfg
        self.paths = {} if whole else flat_paths(native)
        if whole:
            model._behead()
            self.body = model
            return
        for name, path in self.paths.items():
            self.add_module(name, model.get_submodule(path))
        for name, parameter in model._parameters.items():
            self.register_parameter(name, parameter)
        for name, buffer in model._buffers.items():
            self.register_buffer(name, buffer, persistent=name not in model._non_persistent_buffers_set)

    @property
    def network(self) -> Any:
        return self.held[0].model  # type: ignore[index]

    @property
    def return_layers(self) -> dict[str, int]:
        return {row["module"].replace(".", "_"): i for i, row in enumerate(self.feature_info.get_dicts())}

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
        self.joined().set_grad_checkpointing(enable)

    def levels(self, x: Tensor) -> list[Tensor]:
        self.joined()
        return self.held[0](x)  # type: ignore[index]


class FeatureListNet(Extractor):
    """Images -> list of levels; children are named as the family's, whatever `flatten_sequential` says."""

    def __init__(self, model: nn.Module, out_indices: Any = (0, 1, 2, 3, 4), output_fmt: str = "NCHW",
                 feature_concat: bool = False, flatten_sequential: bool = False):  # fmt: skip
        if feature_concat:
            raise OptionError("levels are not joined here: leave feature_concat out")
        super().__init__(model, out_indices, output_fmt)

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.levels(x)


class FeatureDictNet(Extractor):
    """The same by name: those of `out_map`, or the modules'."""

    def __init__(self, model: nn.Module, out_indices: Any = (0, 1, 2, 3, 4), out_map: Any = None,
                 output_fmt: str = "NCHW", feature_concat: bool = False, flatten_sequential: bool = False):  # fmt: skip
        if feature_concat:
            raise OptionError("levels are not joined here: leave feature_concat out")
        super().__init__(model, out_indices, output_fmt)
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
        self.feature_info = FeatureInfo(rows, list(self.feature_info.out_indices))
        self.hooks = FeatureHooks(self.feature_info.get_dicts(), model.named_modules())

    def levels(self, x: Tensor) -> list[Tensor]:
        super().levels(x)
        return list(self.hooks.get_output(x.device).values())


class FeatureGetterNet(FeatureModel):
    """Images -> levels of a network that keeps its own form: keys begin with `model.`."""

    def __init__(self, model: Any, out_indices: Any = 4, out_map: Any = None, return_dict: bool = False,
                 output_fmt: str = "NCHW", norm: bool = False, prune: bool = True):  # fmt: skip
        super().__init__(model, out_indices, "NCHW", norm=norm and model.isotropic, prune=prune)
        if output_fmt not in ("NCHW", "NHWC", "NLC"):
            raise OptionError(f"output_fmt is NCHW, NHWC or NLC, not {output_fmt!r}")
        self.out_map, self.return_dict = out_map, return_dict
        self.output_fmt, self.in_chans, self.default_cfg = output_fmt, model.in_chans, model.pretrained_cfg

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


GETTERS = {"coat", "cspnext", "efficientformer", "efficientvim", "hiera", "hieradet_sam2", "levit", "mobilenetv5",
           "mvitv2", "twins", "visformer", "vision_transformer_sam", "volo"}  # fmt: skip
"""Families, beside those of one resolution, whose extractors keep the network's own form in the field."""


HOOKED = {"nasnet", "pit", "pnasnet", "xception"}
"""Families whose extractors hook the whole network."""


def family_of(model: Any) -> str:
    return type(model).__module__.rpartition(".")[2]


def keeps_form(model: Any) -> bool:
    return model.isotropic or family_of(model) in GETTERS


def flattened(model: Any) -> bool:
    """Whether the field takes the blocks of this network apart in its extractors."""
    inside = any("." in level.module for level in model.feature_info.levels)
    whole = family_of(model) in HOOKED or (keeps_form(model) and not model.flat_parts)
    return inside and model.flat_levels and not whole


def extractor_of(model: Any, out_indices: Any = None, feature_cls: Any = None, out_map: Any = None,
                 output_fmt: str | None = None, flatten_sequential: bool = False, norm: bool = False,
                 return_dict: bool = False, feature_location: str | None = None) -> nn.Module:  # fmt: skip
    """The extractor of a network, in the form that the field gives its family unless `feature_cls` says.

    `feature_location` is of mobile networks: "bottleneck", or "expansion" (also "depthwise") for the wide inside of
    the last block of each level.
    """
    from ._extract import FeatureGraphNet, FeatureHookNet

    if out_indices is None:
        out_indices = default_out_indices(model)
    if feature_location is not None and not isinstance(model, MobileTrunk):
        raise OptionError("feature_location is for EfficientNet and MobileNetV3: leave it out")
    if feature_location not in (None, "bottleneck", "expansion", "depthwise"):
        raise OptionError(f"feature_location is 'bottleneck', 'expansion' or 'depthwise', not {feature_location!r}")
    if feature_location in ("expansion", "depthwise"):
        return ExpansionListNet(model, out_indices, output_fmt or "NCHW")
    if feature_cls is None:
        feature_cls = "getter" if keeps_form(model) else "hook" if family_of(model) in HOOKED else "list"
    if feature_cls in ("getter", FeatureGetterNet) or norm:
        return FeatureGetterNet(model, out_indices, out_map, return_dict, output_fmt or "NCHW", norm)
    if feature_cls in ("hook", "fx") or feature_cls in (FeatureHookNet, FeatureGraphNet):
        form: Any = {"hook": FeatureHookNet, "fx": FeatureGraphNet}.get(str(feature_cls), feature_cls)
        parts: dict[str, Any] = {"flatten_sequential": flattened(model)} if form is FeatureHookNet else {}
        return form(model, out_indices, out_map, return_dict=return_dict, output_fmt=output_fmt or "NCHW", **parts)
    output_fmt = output_fmt or ("NHWC" if model.channels_last else "NCHW")  # as the levels are inside
    if feature_cls in ("dict", FeatureDictNet):
        return FeatureDictNet(model, out_indices, out_map, output_fmt)
    if feature_cls not in ("list", FeatureListNet):
        raise OptionError("feature_cls is 'list', 'dict', 'getter', 'hook' or 'fx'")
    return FeatureListNet(model, out_indices, output_fmt)
