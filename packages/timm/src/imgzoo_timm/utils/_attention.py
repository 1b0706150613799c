"""What attention looks at, taken out of a network by its graph or by hooks."""

from __future__ import annotations

import re
from collections import OrderedDict
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo_layers import set_fused_attn
from imgzoo_timm.layers._training import create_feature_extractor, get_graph_node_names
from imgzoo_timm.models._extract import FeatureHooks


class AttentionExtract(nn.Module):
    """Weights of attention by name: the softmax nodes of a traced graph (`fx`), or what `attn_drop` sees (`hook`).

    Names are patterns, or regular expressions with `use_regex`. The network's attention runs step by step from here on.
    """

    default_node_names = ("*attn.softmax",)
    default_module_names = ("*attn_drop",)

    def __init__(self, model: nn.Module, names: list[str] | None = None, mode: str = "eval", method: str = "fx",
                 hook_type: str = "forward", use_regex: bool = False):  # fmt: skip
        super().__init__()
        if method not in ("fx", "hook") or mode not in ("train", "eval"):
            raise ValueError(f"method is fx or hook, mode train or eval, not {method!r} and {mode!r}")
        set_fused_attn(model, False)
        self.mode, self.method, self.hooks = mode, method, None
        if method == "fx":
            nodes = get_graph_node_names(model)[0 if mode == "train" else 1]
            self.names = matching(nodes, names or self.default_node_names, use_regex, "node")
            self.model: nn.Module = create_feature_extractor(model, self.names).train(mode == "train")
        else:
            found = [name for name, _ in model.named_modules()]
            self.names = matching(found, names or self.default_module_names, use_regex, "module")
            self.model = model.train(mode == "train")
            self.hooks = FeatureHooks(self.names, model.named_modules(), default_hook_type=hook_type)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found: Any = self.model(x)
        if self.hooks is None:
            return found
        device: torch.device = x.device
        return OrderedDict(self.hooks.get_output(device))


def matching(found: list[str], patterns: Any, regex: bool, kind: str) -> list[str]:
    """Names that a pattern fits, in their order."""
    fits = re.match if regex else lambda pattern, name: fnmatchcase(name, pattern)
    names = [name for name in found if any(fits(pattern, name) for pattern in patterns)]
    if not names:
        raise RuntimeError(f"no {kind} is called {', '.join(patterns)}")
    return names
