"""Levels: running up to them, collecting them, and dropping what none of them needs."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.features import FeatureInfo, resolve_indices, to_map
from imgzoo.options import plain_numbers

from .classifier import Classified
from .patches import is_patches
from .swapping import Checkpointed, swap_in, swap_out


class Shortened:
    """In front of a pruned network that names its steps one by one: it runs those left, to the deepest level."""

    def forward_features(self: Any, x: Tensor) -> Tensor:
        x = self._entering(x)
        for path, step in self._steps():
            x, outputs = self._advance(path, step, x)
            if self._reached(outputs):
                return self._ended(outputs)
        return self._ending(x)

    def _reached(self: Any, outputs: dict[str, Any]) -> bool:
        return self.deepest in outputs

    def _ended(self: Any, outputs: dict[str, Any]) -> Any:
        """The features, from what the last step gives: the deepest level, normalized where a norm is left for it."""
        level, sharing = outputs[self.deepest], self._sharing(self.deepest)
        level = level if self.which is None else level[self.which]
        return self._ending(self._level_normalized(level, sharing[self.which or 0]))


class Leveled(Classified):
    """A network as steps. The state that goes from one to the next is a map (B, C, H, W) (or (B, H, W, C) where
    `channels_last`), tokens with their grid `((B, N, C), (h, w))`, or a pair or list of tensors."""

    isotropic: ClassVar[bool] = False
    """All levels share width and stride, so the final norm fits any of them."""
    normed_width = None
    """Channels of a level behind the norm that fits them all, where it has others in front."""
    channels_last: ClassVar[bool] = False
    """Maps inside are (B, H, W, C)."""
    shortened: ClassVar[type | None] = None
    """What a pruned network gets in front, where `forward_features` names steps that pruning removes: `Shortened`."""
    formats: ClassVar[tuple[str, ...]] = ("NCHW",)
    """How levels can come."""
    level_part: ClassVar[int] = 0
    """Where the state is a pair of tensors: the one that levels show."""
    levels_left = ()
    """After pruning: the places of the levels that the path still reaches."""
    was_pruned = False
    if TYPE_CHECKING:  # TorchScript would read annotations
        feature_info: FeatureInfo
        normed_width: int | None
        levels_left: tuple[int, ...]

    # the forward path as steps

    def _stages(self) -> list[tuple[str, Any]]:
        """The stages with their paths, whether attributes of the model or children of containers."""
        first, *others = self.parts.stages
        if others:
            return self._unfolded(self.parts.stages)
        return [(f"{first}.{key}", stage) for key, stage in getattr(self, first).named_children()]

    def _unfolded(self, names: tuple[str, ...]) -> list[tuple[str, Any]]:
        """The attributes with their names; the children of those that have a level right inside."""
        owners = {level.module.rpartition(".")[0] for level in self.feature_info.levels}
        steps: list[tuple[str, Any]] = []
        for name in names:
            part = getattr(self, name)
            inside = part.named_children() if name in owners else ()
            steps += [(f"{name}.{key}", child) for key, child in inside] or [(name, part)]
        return steps

    def _pieces(self) -> list[tuple[str, Any]]:
        """Stem and stages in the order of the forward path, as pruning drops them."""
        return self._unfolded(self.parts.stem) + self._stages()

    def _steps(self) -> list[tuple[str, Any]]:
        """The forward path up to the last level; `norm` belongs here where a level is its output."""
        steps = self._pieces()
        levels = {level.module for level in self.feature_info.levels}
        if not levels.isdisjoint(self.parts.norm):
            steps += [(name, getattr(self, name)) for name in self.parts.norm]
        return steps

    def _entering(self, x: Any) -> Any:
        """The images before the first step, of the size that the network is made for where it is made for one."""
        return self.sized_input(x) if hasattr(self, "img_size") and not is_patches(x) else x

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        """Run one step: its output, and the outputs of modules in it by path; families with levels inside a block add
        theirs here. Where several levels share a path its output is a list, one each."""
        x = step(x)
        return x, {path: x}

    def _reached(self, outputs: dict[str, Any]) -> bool:
        """Whether a pruned network ends behind a step that gives these."""
        return False

    def _ended(self, outputs: dict[str, Any]) -> Any:
        raise NotImplementedError(f"{type(self).__name__} runs to its end")

    def _shown(self, x: Any) -> Any:
        """What of a state is the level, or is normalized at the end: a map or tokens."""
        if not isinstance(x, (tuple, list)):  # a tensor, or what stands for one while a tracer looks
            return x
        return x[0] if is_grid(x[1]) else x[self.level_part]

    def _level_norm(self, index: int) -> nn.Module | None:
        """The norm of a level where no norm fits them all: that of the network for the last."""
        names, last = self.parts.norm, len(self.feature_info) - 1
        fits = len(names) == 1 and names[0].startswith("norm") and index == last
        return getattr(self, names[0]) if fits else None

    def _level_normalized(self, x: Any, index: int) -> Any:
        """A captured state with its level normalized."""
        norm = self._level_norm(index)
        if norm is None:
            return x
        if not isinstance(x, (tuple, list)):
            return norm(x)
        level = 0 if is_grid(x[1]) else self.level_part
        return [norm(part) if i == level else part for i, part in enumerate(x)]

    def _collect(self, x: Any, norm: bool) -> Any:
        """A captured state as the level's value."""
        if isinstance(x, (tuple, list)) and is_grid(x[1]):
            tokens = self._final_norm(x) if norm and self.isotropic else x[0]
            return to_map(tokens[:, tokens.shape[1] - x[1][0] * x[1][1] :], x[1])
        x = self._final_norm(x) if norm and self.isotropic else self._shown(x)
        return x.permute(0, 3, 1, 2) if self.channels_last else x

    def _final_norm(self, x: Any) -> Any:
        """The state behind the last step -> what `forward_features` returns."""
        x = self._shown(x)
        for name in self.parts.norm:
            x = getattr(self, name)(x)
        return x

    def _stopped(self, x: Any) -> Any:
        """The state behind a step that is not the last -> the features of a path that stops early there."""
        return self._shown(x) if isinstance(x, tuple) else x

    # what the public asks for

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Run the network and return `(features, levels)`, or `levels` alone: a list of (B, C, H, W), as asked for.

        Args:
            indices: None for all levels, n for the last n, or a list; negatives count from the end, in a pruned
                network from the deepest left. Levels come in the order of the list, where the field's come by depth.
            norm: apply the final norm to each level, or to the last one where levels are of several widths.
            stop_early: leave out what no level needs; `features` are then what the path had come to, normalized only
                where the norm fits all levels. With the last level they are those of the whole network.
            output_fmt: one of `formats`: "NCHW"; networks of tokens know "NLC" too, some of maps "NHWC".
        """
        self._check_output_fmt(output_fmt)
        chosen = self._asked(indices)
        stops = intermediates_only or (stop_early and len(self.feature_info) - 1 not in chosen)
        position: dict[str, list[int]] = {}
        for i, level in enumerate(self.feature_info.levels):
            position.setdefault(level.module, []).append(i)
        found: dict[int, Any] = {}
        steps, outputs = self._steps(), {}
        x = self._entering(x)
        for path, step in steps:
            x, outputs = self._advance(path, step, x)
            for module in outputs.keys() & position.keys():
                places = position[module]
                values = outputs[module] if len(places) > 1 else (outputs[module],)
                for i, value in zip(places, values, strict=True):
                    if i in chosen:
                        value = self._level_normalized(value, i) if norm and not self.isotropic else value
                        found[i] = self._collect(value, norm)
            if self._reached(outputs) or (stops and len(found) == len(chosen)):
                break
        levels = [self._format(found[i], output_fmt, i) for i in chosen]
        if intermediates_only:
            return levels
        if self._reached(outputs):
            return self._ended(outputs), levels
        if self.isotropic or (steps[-1][0] == path and path not in self.parts.norm):
            x = self._final_norm(x)
        elif path not in self.parts.norm:
            x = self._stopped(x)
        return x, levels

    def _asked(self, indices: int | Sequence[int] | None) -> list[int]:
        """The places of the levels asked for, among those that pruning left."""
        left = self.levels_left or tuple(range(len(self.feature_info)))
        indices = plain_numbers(indices)
        if indices is not None and not isinstance(indices, int):
            indices = [left.index(i) if i in left else max(i, len(left)) if i >= 0 else i for i in indices]
        return [left[i] for i in resolve_indices(len(left), indices)]

    def _check_output_fmt(self, output_fmt: str) -> None:
        if output_fmt not in self.formats:
            known = " or ".join(map(repr, self.formats))
            raise UsageError(f"levels of {type(self).__name__} come as {known}, not '{output_fmt}'")

    def _format(self, level: Any, output_fmt: str, index: int) -> Any:
        """What `_collect` made of a level, here a map, in the form asked for: "NLC" is (B, H * W, C)."""
        if output_fmt == "NHWC":
            return level.permute(0, 2, 3, 1)
        return level.flatten(2).transpose(1, 2) if output_fmt == "NLC" else level

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what lies behind the deepest of `indices`, and with the head all that only it needs; the levels' places.

        What is left still runs: `forward` gives the deepest level, normalized where the norm fits it: other layers
        between the last level and the head, such as a convolution to its width, go with the head. Without
        `prune_head` the classifier must fit what is left: behind the last level, or any of a network of one width; of
        what stands between, `prune_norm` then takes norms alone.
        """
        chosen = self._asked(indices)
        self.was_pruned = True
        pieces, levels = self._pieces(), self.feature_info.levels
        places = [self._place(pieces, level.module) for level in levels]
        place, deepest = max((places[i], i) for i in chosen)
        level = levels[deepest]
        norms = self.parts.norm
        if not prune_head:
            norms = tuple(path for path in norms if any(part.startswith("norm") for part in path.split(".")))
            if place == max(places):
                self._drop(norms if prune_norm else ())
                return chosen
            if not self.isotropic:
                raise UsageError(
                    f"the classifier of {type(self).__name__} reads {self.num_features} channels, "
                    f"level {deepest} has {level.channels}: let prune_head=True drop it"
                )
        elif self.shortened is not None:
            sharing = self._sharing(level.module)
            self.deepest, self.which = level.module, sharing.index(deepest) if len(sharing) > 1 else None
            swap_in(self, self.shortened)
        self.levels_left = tuple(i for i, at in enumerate(places) if at < place or i in chosen)
        if place < len(pieces):
            self._cut(level.module, chosen)
        dropped = [path for path, _ in pieces[place + 1 :]]
        fits = self.isotropic or (place == max(places) and not (prune_head and self._level_norm(deepest) is None))
        if level.module not in self.parts.norm and (prune_norm or not fits):
            dropped += norms
        self._drop(dropped)
        if prune_head:
            self._drop(self.parts.tail)
            if dropped or self.shortened is not None:
                self.num_features = level.channels
            self._behead()
        return chosen

    def _sharing(self, module: str) -> list[int]:
        """The levels that are outputs of one module."""
        return [i for i, level in enumerate(self.feature_info.levels) if level.module == module]

    def _idle_norms(self, chosen: Sequence[int]) -> Iterable[str]:
        """Final norms that none of the chosen levels has, where the network has several."""
        return ()

    def _place(self, pieces: list[tuple[str, Any]], module: str) -> int:
        """The piece that a level belongs to; their number for what comes behind them all."""
        owners = (i for i, (path, _) in enumerate(pieces) if f"{module}.".startswith(f"{path}."))
        return next(owners, len(pieces))

    def _cut(self, level: str, chosen: list[int]) -> None:
        """Leave of the piece with the deepest level what that and the other chosen levels need of it; for families
        whose levels lie inside a block, or that have several behind one."""

    def _ending(self, x: Any) -> Any:
        """The value of the deepest level, as the head reads it."""
        return self._collect(x, False)

    def _drop(self, paths: Iterable[str]) -> None:
        """Put nothing in the place of modules and parameters; children of containers go without a trace."""
        for path in paths:
            parent, _, name = path.rpartition(".")
            owner = dict(self.named_modules()).get(parent) if parent else self
            if owner is None:
                continue
            if name not in owner._modules:
                if name in owner._parameters:
                    owner.register_parameter(name, None)
            elif isinstance(owner, nn.Sequential):
                delattr(owner, name)
            else:
                setattr(owner, name, nn.Identity())

    # checkpointing

    def _blocks(self) -> list[nn.Module]:
        """The units that gradient checkpointing repeats: blocks of the stages, or the stages themselves."""
        units: list[nn.Module] = []
        stages = [stage for _, stage in self._stages() if isinstance(stage, nn.Module)]  # parameters stand between some
        for stage in stages:
            inner = getattr(stage, "blocks", stage)
            children = list(inner.children()) if isinstance(inner, (nn.Sequential, nn.ModuleList)) else [stage]
            units += children
        return units

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory: forget the inside of each block and run it again for the backward pass."""
        for block in self._blocks():
            (swap_in if enable else swap_out)(block, Checkpointed)


def is_grid(value: Any) -> bool:
    """Whether a part of a state is the size of a grid: a pair inside the pair."""
    return isinstance(value, (tuple, list)) and len(value) == 2
