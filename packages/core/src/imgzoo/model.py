"""The interface of every network. A family declares its parts, levels and layer groups; the base derives the rest."""

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .errors import CapabilityError, UsageError
from .features import Feature, FeatureInfo, resolve_indices, to_map

__all__ = ["Feature", "FeatureInfo", "ImageModel", "Parts", "TokenModel"]


class Parts(NamedTuple):
    """Where a network keeps what: attribute names, in the order of the forward path.

    `stem` and `norm` are called one after another (methods count too); `stages` are modules, and a single name may be
    a container of them. `pool` and `head` are dotted paths; a network with two classifiers names both in `head`.
    """

    stem: tuple[str, ...] = ("stem",)
    stages: tuple[str, ...] = ("stages",)
    norm: tuple[str, ...] = ()
    pool: str = "head.global_pool"
    head: str | tuple[str, ...] = "head.fc"


class ImageModel(nn.Module):
    """Base of all networks: (B, in_chans, H, W) -> (B, num_classes).

    A family sets `parts`, `layer_groups` and, in its constructor, `feature_info` and `num_features`; it writes
    `forward_features`, and `forward_head` where the head is not one module called `head`.
    """

    parts: ClassVar[Parts] = Parts()
    layer_groups: ClassVar[dict[str, Any]] = {}
    """`stem`, `blocks` and, where it differs, `coarse`: regular expressions over parameter names."""
    no_decay: ClassVar[tuple[str, ...]] = ()
    """Globs of parameters that weight decay leaves alone, beside one-dimensional ones."""
    isotropic: ClassVar[bool] = False
    """All levels share width and stride, so the final norm fits any of them."""
    channels_last: ClassVar[bool] = False
    """Maps inside are (B, H, W, C)."""
    layout: ClassVar[Literal["plain", "nhwc_eval", "nhwc"]] = "nhwc_eval"
    """Which eager batches on the CPU are laid out channels-last: none, those outside training, or all."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3):
        super().__init__()
        if num_classes < 0 or in_chans < 1:
            raise UsageError(f"num_classes must be >= 0 and in_chans >= 1, got {num_classes} and {in_chans}")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = 0
        self.head_hidden_size = 0
        self.feature_info = FeatureInfo([])
        self.pretrained_cfg: dict[str, Any] = {}

    if TYPE_CHECKING:  # parts are set by name, so their types are not known

        def __getattr__(self, name: str) -> Any: ...

    # forward path

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> the unpooled features, final norm included."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Unpooled features -> logits (B, num_classes), or with `pre_logits` the vector before the classifier."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self.forward_head(self.forward_features(x))
        else:  # scripting compiles what follows a return, but not this branch
            return packed(self.forward_head(self.forward_features(self._lay_out(x))))

    def _lay_out(self, x: Tensor) -> Tensor:
        """A batch on the CPU in channels-last memory, where eager convolutions read it without reordering."""
        if self.layout == "plain" or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return x  # compilers choose layouts themselves, and must not see the batch's size here
        if (self.training and self.layout == "nhwc_eval") or not x.is_cpu or x.ndim != 4 or x.shape[0] < 2:
            return x
        return x.contiguous(memory_format=torch.channels_last)

    # levels

    def _stages(self) -> list[tuple[str, nn.Module]]:
        """The stages with their paths, whether attributes of the model or children of containers."""
        names = self.parts.stages
        if len(names) > 1:
            return self._unfolded(names)
        return [(f"{names[0]}.{key}", stage) for key, stage in getattr(self, names[0]).named_children()]

    def _unfolded(self, names: tuple[str, ...]) -> list[tuple[str, Any]]:
        """The attributes with their names; the children of those that have a level right inside."""
        owners = {level.module.rpartition(".")[0] for level in self.feature_info.levels}
        steps: list[tuple[str, Any]] = []
        for name in names:
            part = getattr(self, name)
            inside = part.named_children() if name in owners else ()
            steps += [(f"{name}.{key}", child) for key, child in inside] or [(name, part)]
        return steps

    def _steps(self) -> list[tuple[str, Any]]:
        """The forward path up to the last level; `norm` belongs here where a level is its output."""
        steps = self._unfolded(self.parts.stem) + self._stages()
        levels = {level.module for level in self.feature_info.levels}
        if not levels.isdisjoint(self.parts.norm):
            steps += [(name, getattr(self, name)) for name in self.parts.norm]
        return steps

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        """Run one step: its output, and the outputs of modules in it by path; families with levels inside a block add
        theirs here."""
        x = step(x)
        return x, {path: x}

    def _collect(self, x: Tensor, norm: bool) -> Any:
        """A captured output as the level's value; token models normalize and split off their prefix here."""
        return x.permute(0, 3, 1, 2) if self.channels_last else x

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
            indices: None for all levels, n for the last n, or a list; negatives count from the end.
            norm: apply the final norm to each level, where it fits all of them.
            stop_early: leave out what no level needs.
            output_fmt: "NCHW"; token models know "NLC" too.
        """
        self._check_output_fmt(output_fmt)
        chosen = resolve_indices(len(self.feature_info), indices)
        position = {self.feature_info.levels[i].module: i for i in chosen}
        found: dict[int, Any] = {}
        last = max(chosen)
        steps = self._steps()
        for path, step in steps:
            x, outputs = self._advance(path, step, x)
            for module in outputs.keys() & position.keys():
                found[position[module]] = self._collect(outputs[module], norm)
            if (stop_early or intermediates_only) and last in found:
                break
        levels = [self._format(found[i], output_fmt, x) for i in chosen]
        if intermediates_only:
            return levels
        if self.isotropic or (steps[-1][0] == path and path not in self.parts.norm):
            x = self._final_norm(x)
        return x, levels

    def _check_output_fmt(self, output_fmt: str) -> None:
        if output_fmt != "NCHW":
            raise UsageError(f"levels of {type(self).__name__} come as 'NCHW', not '{output_fmt}'")

    def _format(self, level: Any, output_fmt: str, last: Tensor) -> Any:
        return level

    def _final_norm(self, x: Tensor) -> Tensor:
        for name in self.parts.norm:
            x = getattr(self, name)(x)
        return x

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the layers behind the deepest of `indices`; returns their positions. The head goes unless told."""
        chosen = resolve_indices(len(self.feature_info), indices)
        deepest = self.feature_info.levels[max(chosen)].module
        paths = [path for path, _ in self._stages()]
        final = deepest in self.parts.norm
        owners = [i for i, path in enumerate(paths) if f"{deepest}.".startswith(f"{path}.")]
        keep = owners[0] + 1 if owners else len(paths) * final
        for path in paths[keep:]:
            owner, _, name = path.rpartition(".")
            if owner:
                delattr(self.get_submodule(owner), name)
            else:
                setattr(self, name, nn.Identity())
        if not final and (prune_norm or (keep < len(paths) and not self.isotropic)):
            for name in self.parts.norm:
                if isinstance(getattr(self, name), nn.Module):
                    setattr(self, name, nn.Identity())
        if prune_head:
            self.reset_classifier(0, "")
        return chosen

    # classifier

    def _heads(self) -> tuple[str, ...]:
        head = self.parts.head
        return (head,) if isinstance(head, str) else head

    def get_classifier(self) -> Any:
        """The classifier module; a tuple where there are two."""
        heads = tuple(self.get_submodule(path) for path in self._heads())
        return heads[0] if len(heads) == 1 else heads

    def _set_pool(self, global_pool: str) -> None:
        pool: Any = self.get_submodule(self.parts.pool)
        before = pool.width
        pool.set(global_pool)
        self.head_hidden_size = self.head_hidden_size // before * pool.width

    def pool_kind(self) -> str:
        """How the model pools: `avg`, `token`, ..., `""` for not at all."""
        return self.get_submodule(self.parts.pool).kind  # type: ignore[return-value]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put in a new classifier of the same device and dtype; 0 classes removes it, None keeps the pool."""
        if num_classes < 0:
            raise UsageError(f"num_classes must be >= 0, got {num_classes}")
        if global_pool is not None:
            self._set_pool(global_pool)
        like = next(p for p in self.parameters() if p.is_floating_point())
        for path in self._heads():
            parent, _, name = path.rpartition(".")
            owner = self.get_submodule(parent)
            bias = getattr(getattr(owner, name), "bias", True) is not None
            new: nn.Module = nn.Identity()
            if num_classes:
                new = self._new_classifier(num_classes, bias).to(device=like.device, dtype=like.dtype)
            setattr(owner, name, new.train(self.training))
        self.num_classes = num_classes

    def _new_classifier(self, num_classes: int, bias: bool) -> nn.Module:
        return nn.Linear(self.head_hidden_size, num_classes, bias=bias)

    # size of the input

    def set_input_size(self, img_size: int | tuple[int, int] | None = None, **options: Any) -> None:
        """Prepare the model for another image size; a network without position tables takes any size already."""
        if options:
            raise CapabilityError(f"{type(self).__name__} has no {', '.join(options)} to set")

    # training helpers

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Rules that number the layers for layer-wise decay (`imgzoo.groups.layer_ids` applies them)."""
        groups = self.layer_groups
        blocks = groups.get("coarse", groups["blocks"]) if coarse else groups["blocks"]
        return {"stem": groups["stem"], "blocks": blocks}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay should leave alone, beside one-dimensional ones."""
        return {n for n, _ in self.named_parameters() if any(fnmatch.fnmatch(n, p) for p in self.no_decay)}

    def _blocks(self) -> list[nn.Module]:
        """The units that gradient checkpointing repeats: blocks of the stages, or the stages themselves."""
        units: list[nn.Module] = []
        for _, stage in self._stages():
            inner = getattr(stage, "blocks", stage)
            children = list(inner.children()) if isinstance(inner, (nn.Sequential, nn.ModuleList)) else [stage]
            units += children
        return units

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory: forget the inside of each block and run it again for the backward pass."""
        for block in self._blocks():
            checkpointed = isinstance(block, Checkpointed)
            if enable and not checkpointed:
                cls = type(block)
                block.__class__ = _checkpointed(cls)
            elif not enable and checkpointed:
                block.__class__ = type(block).__mro__[2]


def packed(x: Any) -> Any:
    """A dense result (B, C, H, W) in ordinary memory order, so that callers may `view` it; others as they are."""
    return x.contiguous() if isinstance(x, Tensor) and x.ndim == 4 else x


class Checkpointed:
    """Mixed into a block's class from outside: its forward is repeated in the backward pass, keys stay as they were."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        inner = super().forward  # type: ignore[misc]
        if torch.is_grad_enabled():
            return checkpoint(inner, *args, use_reentrant=False, **kwargs)
        return inner(*args, **kwargs)


_CHECKPOINTED: dict[type, type] = {}


def _checkpointed(cls: type) -> type:
    if cls not in _CHECKPOINTED:
        _CHECKPOINTED[cls] = type(cls.__name__, (Checkpointed, cls), {"__module__": cls.__module__})
    return _CHECKPOINTED[cls]


class TokenModel(ImageModel):
    """Base of networks that keep one sequence of tokens (B, N, C): prefix tokens first, then the grid row by row.

    A family sets `num_prefix_tokens` and writes `embed`, the path from image to tokens.
    """

    parts: ClassVar[Parts] = Parts(stem=("embed",), stages=("blocks",), norm=("norm",), pool="", head="head")
    layer_groups: ClassVar[dict[str, Any]] = {
        "stem": r"^cls_token|^reg_token|^pos_embed|^patch_embed|^norm_pre",
        "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
    }
    isotropic: ClassVar[bool] = True
    layout = "plain"

    def __init__(self, num_classes: int = 1000, in_chans: int = 3):
        super().__init__(num_classes, in_chans)
        self.num_prefix_tokens = 0
        self.global_pool = ""

    def pool_kind(self) -> str:
        return self.global_pool

    def embed(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> tokens (B, N, C) with prefix and position."""
        raise NotImplementedError

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Patches down and across for an image of this size."""
        raise NotImplementedError

    def forward_intermediates(  # type: ignore[override]
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        return_prefix_tokens: bool = False,
    ) -> Any:
        """As `ImageModel.forward_intermediates`; "NLC" gives tokens, `return_prefix_tokens` pairs (level, prefix)."""
        grid = self.grid_of(x.shape[-2], x.shape[-1])
        result = super().forward_intermediates(x, indices, norm, stop_early, output_fmt, intermediates_only)
        levels = result if intermediates_only else result[1]
        prefix = self.num_prefix_tokens
        for i, level in enumerate(levels):
            body = to_map(level[:, prefix:], grid) if output_fmt == "NCHW" else level[:, prefix:]
            levels[i] = (body, level[:, :prefix]) if return_prefix_tokens else body
        return result

    def _collect(self, x: Tensor, norm: bool) -> Any:
        return self._final_norm(x) if norm else x

    def _check_output_fmt(self, output_fmt: str) -> None:
        if output_fmt not in ("NCHW", "NLC"):
            raise UsageError(f"levels of {type(self).__name__} come as 'NCHW' or 'NLC', not '{output_fmt}'")
