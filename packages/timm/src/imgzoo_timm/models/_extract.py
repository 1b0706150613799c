"""Extractors that keep a network whole: by hooks on its modules, or by its traced graph."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.errors import OptionError
from imgzoo.features import resolve_indices
from imgzoo_timm.layers._patch_embed import Format
from imgzoo_timm.layers._training import create_feature_extractor

from ._features import Extractor, FeatureInfo

__all__ = ["FeatureGraphNet", "FeatureHookNet", "FeatureHooks", "GraphExtractNet"]


class FeatureHooks:
    """What modules give, or take with a `forward_pre` hook, until `get_output` takes it: by name, or by `out_map`."""

    def __init__(self, hooks: Sequence[Any], named_modules: Any, out_map: Sequence[Any] | None = None,
                 default_hook_type: str = "forward"):  # fmt: skip
        self.outputs: dict[torch.device, OrderedDict[Any, Any]] = {}
        self.handles = []
        modules = dict(named_modules)
        for i, hook in enumerate(hooks):
            row = {"module": hook} if isinstance(hook, str) else hook
            name, kind = row["module"], row.get("hook_type", default_hook_type)
            keep = partial(self.keep, out_map[i] if out_map else name)
            if kind == "forward_pre":
                self.handles.append(modules[name].register_forward_pre_hook(partial(self.take, keep)))
            elif kind == "forward":
                self.handles.append(modules[name].register_forward_hook(keep))
            else:
                raise OptionError(f"hook_type is 'forward' or 'forward_pre', not {kind!r}")

    def keep(self, name: Any, module: nn.Module, given: Any, output: Any) -> None:
        x = output[0] if isinstance(output, tuple) else output
        self.outputs.setdefault(x.device, OrderedDict())[name] = x

    @staticmethod
    def take(keep: Any, module: nn.Module, given: Any) -> None:
        keep(module, given, given)

    def get_output(self, device: torch.device) -> OrderedDict[Any, Any]:
        return self.outputs.pop(device, OrderedDict())


class FeatureHookNet(Extractor):
    """Images -> what the modules of the chosen levels give, as they give it.

    The network is whole, and keys begin with `body.`; with `flatten_sequential` it is in parts, as of `FeatureListNet`.
    """

    def __init__(self, model: Any, out_indices: Any = (0, 1, 2, 3, 4), out_map: Any = None, return_dict: bool = False,
                 output_fmt: str = "NCHW", no_rewrite: bool | None = None, flatten_sequential: bool = False,
                 default_hook_type: str = "forward"):  # fmt: skip
        whole = not flatten_sequential if no_rewrite is None else no_rewrite
        super().__init__(model, out_indices, output_fmt, whole)
        self.return_dict = return_dict
        rows = self.feature_info.get_dicts()
        self.hooks = FeatureHooks(rows, self.network.named_modules(), out_map, default_hook_type)

    def forward(self, x: Tensor) -> Any:
        self.levels(x)
        found = self.hooks.get_output(x.device)
        return found if self.return_dict else list(found.values())


class GraphExtractNet(nn.Module):
    """Images -> the named nodes of a network's traced graph; keys begin with `graph_module.`."""

    def __init__(self, model: nn.Module, return_nodes: Mapping[str, str] | list[str], squeeze_out: bool = True,
                 return_dict: bool = False):  # fmt: skip
        super().__init__()
        self.squeeze_out, self.return_dict = squeeze_out, return_dict
        self.graph_module = create_feature_extractor(model, return_nodes)

    def forward(self, x: Tensor) -> Any:
        found = self.graph_module(x)
        if self.return_dict:
            return found
        values = list(found.values())
        return values[0] if self.squeeze_out and len(values) == 1 else values


class FeatureGraphNet(GraphExtractNet):
    """The same for the levels of a network."""

    def __init__(self, model: Any, out_indices: Any, out_map: Mapping[str, str] | None = None,
                 output_fmt: str = "NCHW", return_dict: bool = False):  # fmt: skip
        chosen = resolve_indices(len(model.feature_info), out_indices)
        info = FeatureInfo.of(model.feature_info).from_other(chosen)
        if out_map is not None and len(out_map) != len(chosen):
            raise OptionError(f"out_map names {len(out_map)} levels of {len(chosen)}")
        nodes = {row["module"]: (out_map or {}).get(row["module"], str(row["index"])) for row in info.get_dicts()}
        super().__init__(model, nodes, squeeze_out=False, return_dict=return_dict)
        self.feature_info, self.output_fmt = info, Format(output_fmt)
