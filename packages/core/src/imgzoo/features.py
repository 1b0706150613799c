"""Features of every model in one form: its levels, how indices choose them, and the `features_only` model."""

from collections.abc import Iterable, Sequence, Set
from typing import Any, NamedTuple

import torch
import torch.fx
from torch import Tensor, nn

from .errors import CapabilityError, UsageError
from .options import plain_numbers


class Feature(NamedTuple):
    """One level of a model: channels, stride to the input, and the module whose output it is."""

    channels: int
    reduction: int
    module: str


class FeatureInfo(Sequence):
    """The levels of a model, or those that `out_indices` chose. `info[i]` is a dict, as downstream libraries expect."""

    def __init__(self, levels: Iterable[Feature | tuple[int, int, str]], out_indices: Sequence[int] | None = None):
        self.levels = [Feature(*level) for level in levels]
        self.out_indices = tuple(range(len(self.levels)) if out_indices is None else out_indices)

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        level = self.levels[index]
        return {"num_chs": level.channels, "reduction": level.reduction, "module": level.module}

    def _get(self, key: str, idx: int | Sequence[int] | None) -> Any:
        idx = plain_numbers(idx)
        if isinstance(idx, int):
            return self[idx][key]
        return [self[i][key] for i in (self.out_indices if idx is None else idx)]

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        return self._get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        return self._get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        return self._get("module", idx)

    def get_dicts(self, keys: Sequence[str] | None = None, idx: Sequence[int] | None = None) -> list[dict[str, Any]]:
        rows = [self[i] for i in (self.out_indices if idx is None else idx)]
        return [{key: row[key] for key in (keys or row)} for row in rows]

    def select(self, out_indices: Sequence[int]) -> "FeatureInfo":
        return FeatureInfo(self.levels, out_indices)

    def widened(self, channels: int) -> "FeatureInfo":
        """The same levels, each of so many channels."""
        return FeatureInfo([level._replace(channels=channels) for level in self.levels], self.out_indices)

    def __repr__(self) -> str:
        return f"FeatureInfo({[tuple(level) for level in self.levels]}, out_indices={self.out_indices})"


def resolve_indices(count: int, indices: int | Sequence[int] | None) -> list[int]:
    """Turn None (all), n (the last n) or a list (negatives count from the end) into positions below `count`."""
    indices = plain_numbers(indices)
    if indices is None:
        return list(range(count))
    if isinstance(indices, int):
        if not 0 < indices <= count:
            raise UsageError(f"the last {indices} features were asked for, but this model has {count}")
        return list(range(count - indices, count))
    chosen = []
    for index in indices:
        if not -count <= index < count:
            raise UsageError(f"feature index {index} is out of range: this model has features 0 to {count - 1}")
        chosen.append(index % count)
    if not chosen or len(set(chosen)) != len(chosen):
        raise UsageError(f"feature indices must be distinct and at least one, got {list(indices)}")
    return chosen


class FeatureModel(nn.Module):
    """What `features_only=True` returns: images -> list of (B, C, H, W), one a chosen level, in the order asked.

    `norm` applies the network's final norm to every level, where it fits all of them (ViT); `names`, one a chosen
    level, give a dictionary instead of a list, `names=True` one by module; `prune=False` keeps what no level needs.
    Its keys begin with `model.`. `load_state_dict` takes them without it too, under `body.`, and with the rows of its
    first level joined to their name by `_` (`stages_0.*`), as the field's extractors have them: `flat_state_dict` gives
    the last form. Weights of what no level needs, such as the head, may be there: they are left.
    """

    pruned: Set[str] = frozenset()
    """Keys of the network that went with what no level needs."""

    def __init__(
        self,
        model: Any,
        out_indices: int | Sequence[int] | None = None,
        output_fmt: str = "NCHW",
        *,
        norm: bool = False,
        prune: bool = True,
        names: Sequence[str] | bool = False,
    ):
        super().__init__()
        chosen = resolve_indices(len(model.feature_info), out_indices)
        if output_fmt not in ("NCHW", "NHWC"):
            raise UsageError(f"output_fmt is 'NCHW' or 'NHWC', not '{output_fmt}'")
        if norm and not model.isotropic:
            raise CapabilityError(f"{model.name or 'this network'} has no norm for all its levels: leave norm out")
        self.model = model
        self.norm = norm
        self.out_indices = list(chosen)
        if prune:
            self.prune()
        given = self.feature_info.module_name() if names is True else list(names or ())
        if given and len(set(given)) != len(chosen):
            raise UsageError(f"names are {len(chosen)} different ones, one a chosen level, got {given}")
        self.names = given
        self.output_fmt = output_fmt
        self.pretrained_cfg = model.pretrained_cfg
        self.register_load_state_dict_pre_hook(take_forms)

    def prune(self) -> None:
        """Drop what no level needs."""
        whole = self.model.state_dict().keys()
        self.model.prune_intermediate_layers(self.out_indices, prune_norm=not self.norm)
        if hasattr(self.model, "_idle_norms"):  # a network of another library's has none to tell
            self.model._drop(self.model._idle_norms(self.out_indices))
        self.pruned = whole - self.model.state_dict().keys()

    @property
    def feature_info(self) -> FeatureInfo:
        """The chosen levels, as the network says of them now: other patches have other strides."""
        info, width = self.model.feature_info.select(self.out_indices), self.model.normed_width if self.norm else None
        return info if width is None else info.widened(width)

    def flat_rows(self) -> set[str]:
        """Children of the network whose rows the field joins to their name."""
        inside = {level.module.partition(".")[0] for level in self.feature_info.levels if "." in level.module}
        rows = set[str]()
        for name, part in self.model.named_children() if inside and self.model.flat_levels else ():
            numbered = isinstance(part, (nn.Sequential, nn.ModuleList)) and all(row.isdigit() for row in part._modules)
            if name in inside or numbered or name in self.model.flat_parts:
                rows.add(name)
        return rows

    def flat_state_dict(self) -> dict[str, Tensor]:
        """The state dict under flat keys: `conv1.weight`, `stages_0.blocks.1...`."""
        rows, flat = self.flat_rows(), {}
        for key, value in self.model.state_dict().items():
            first, *rest = key.split(".", 2)
            flat[".".join([f"{first}_{rest[0]}", *rest[1:]]) if first in rows else key] = value
        return flat

    def forward(self, x: Tensor) -> Any:
        maps = self.model.forward_intermediates(x, self.out_indices, norm=self.norm, intermediates_only=True)
        maps = maps if self.output_fmt == "NCHW" else [m.permute(0, 2, 3, 1) for m in maps]
        return dict(zip(self.names, maps)) if self.names else maps

    def __prepare_scriptable__(self) -> nn.Module:
        """TorchScript compiles what a tracer makes of the levels, in the mode (train or eval) that the model is in."""
        return scriptable(self, torch.fx.Tracer())

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.model.set_grad_checkpointing(enable)


def scriptable(module: nn.Module, tracer: torch.fx.Tracer) -> torch.fx.GraphModule:
    """What a tracer makes of a module, whose types follow from the graph: a tensor; a list or a dictionary."""
    graph = tracer.trace(module)
    for node in graph.nodes:
        if node.op in ("placeholder", "output"):
            node.type = None
    return torch.fx.GraphModule(module, graph)


def take_forms(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Give keys of another form of a feature extractor their names, in place; what fits nothing stays as it is."""
    extractor: Any = module
    own, network = module.state_dict().keys(), extractor.model.state_dict().keys()
    known = network | extractor.pruned
    for key in [key for key in state if key.startswith(prefix) and key[len(prefix) :] not in own]:
        plain = native_key(key[len(prefix) :], known)
        if plain is not None:
            weight = state.pop(key)
            if plain in network:
                state[f"{prefix}model.{plain}"] = weight


def native_key(key: str, known: Set[str]) -> str | None:
    """The one of a network's keys that a key of any of its extractors means: `stages.0.*` of `body.stages_0.*`."""
    for plain in (key, key.removeprefix("model."), key.removeprefix("body.")):
        first, dot, rest = plain.partition(".")
        joints = [at for at, letter in enumerate(first) if letter == "_"]
        forms = (plain, *(f"{first[:at]}.{first[at + 1 :]}{dot}{rest}" for at in joints))
        found = next((each for each in forms if each in known), None)
        if found is not None:
            return found
    return None


def default_out_indices(model: Any) -> int | Sequence[int] | None:
    """What the family says; else all levels of a pyramid, the last three of a network of one resolution (ViT)."""
    if model.default_levels is not None:
        return model.default_levels
    levels: FeatureInfo = model.feature_info
    strides = {level.reduction for level in levels.levels}
    return 3 if len(strides) == 1 and len(levels) > 5 else None


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, H*W, C) -> (B, C, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, grid).contiguous(memory_format=torch.contiguous_format)
