"""The interface of every network. A family declares its parts, levels, tables and layer groups; the base derives the
rest."""

import fnmatch
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from imgzoo.errors import CapabilityError, UsageError
from imgzoo.features import FeatureInfo

from .levels import Leveled


class ImageModel(Leveled):
    """Base of all networks: (B, in_chans, H, W) -> (B, num_classes).

    A family sets `parts`, `layer_groups` and, in its constructor, `feature_info` and `num_features`; it writes
    `forward_features`, and `forward_head` where the head is not one module called `head`.
    """

    layer_groups: ClassVar[dict[str, Any]] = {}
    """`stem`, `blocks` and, where it differs, `coarse`: regular expressions over parameter names."""
    no_decay: ClassVar[tuple[str, ...]] = ()
    """Globs of parameters that weight decay leaves alone, beside one-dimensional ones."""
    norms_act: ClassVar[bool | None] = False
    """True where every norm has an activation behind it, None where some have: of LayerNorm2d the field calls that by
    the same name, with another epsilon."""
    layout: ClassVar[Literal["plain", "nhwc_eval", "nhwc"]] = "nhwc_eval"
    """Which eager batches on the CPU are laid out channels-last: none, those that no gradient follows, or all."""
    layout_from: ClassVar[int] = 2
    """The least batch that is: of fewer images torch reorders large kernels for longer than it computes."""

    default_levels: ClassVar[tuple[int, ...] | None] = None
    """Levels that `features_only` gives where none are asked for; None for the usual ones."""
    flat_levels: ClassVar[bool] = True
    """Whether extractors of the field join the rows of its blocks to their name (`stages_0`)."""
    flat_parts: ClassVar[tuple[str, ...]] = ()
    """Sequences of named parts that extractors of the field take apart, too."""
    takes_patches: ClassVar[bool] = False
    """Whether `forward` takes `Patches` of images of mixed shapes; `take_patches` lets others do so."""

    planes_apart: ClassVar[bool] = False
    """Whether kernels over flattened patches hold one channel's pixels after another's, not one pixel's channels."""
    black: ClassVar[float] = 0.0
    """The pixel value that adds nothing: it is not zero where a network shifts pixels itself."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3):
        super().__init__()
        if num_classes < 0 or in_chans < 1:
            raise UsageError(f"num_classes must be >= 0 and in_chans >= 1, got {num_classes} and {in_chans}")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = 0
        self.head_hidden_size = 0
        self.feature_info = FeatureInfo([])
        # what `create_model` writes: the name, the options that differ from its row, preprocessing, names of the
        # classes in order, what happened to the weights, and how the model pooled at first
        self.name = ""
        self.model_args: dict[str, Any] = {}
        self.pretrained_cfg: dict[str, Any] = {}
        self.class_names: Any = None
        self.load_report: Any = None
        self.pooled_at_first = ""

    if TYPE_CHECKING:  # parts are set by name, so their types are not known

        def __getattr__(self, name: str) -> Any: ...

    def _refuse_idle(self, layer: type[nn.Module], **rates: float) -> None:
        """Refuse what is to be dropped by a `layer` that these blocks have none of; for a family's constructor."""
        for name, rate in rates.items():
            if rate and not any(isinstance(module, layer) for module in self.modules()):
                raise CapabilityError(f"these blocks have nothing that {name} drops; leave it out")

    # forward path

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> the unpooled features, final norm included."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Unpooled features -> logits (B, num_classes), or with `pre_logits` the vector before the classifier."""
        return self.head(x, pre_logits=True) if pre_logits else self.head(x)  # a caller's own part takes x alone

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self.forward_head(self.forward_features(x))
        else:  # scripting compiles what follows a return, but not this branch
            x = laid_out(x, self.layout, self.training, self.layout_from)
            return packed(self.forward_head(self.forward_features(x)))

    def _before_stage(self, x: Tensor) -> Tensor:
        """What a family of large kernels passes to its later stages; the same values."""
        return plain_where_small(x)

    def _through_stages(self, x: Tensor) -> Tensor:
        """The same for a family whose `stages` follow one another: (B, C, H, W) behind the stem -> behind the last."""
        for stage in self.stages:
            x = stage(self._before_stage(x))
        return x

    # training helpers

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Rules that number the layers for layer-wise decay (`imgzoo.groups.layer_ids` applies them)."""
        groups = self.layer_groups
        blocks = groups.get("coarse", groups["blocks"]) if coarse else groups["blocks"]
        return {"stem": groups["stem"], "blocks": blocks}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay should leave alone, beside one-dimensional ones."""
        return {n for n, _ in self.named_parameters() if any(fnmatch.fnmatch(n, p) for p in self.no_decay)}


def laid_out(x: Tensor, layout: str, training: bool, least: int = 2) -> Tensor:
    """A batch on the CPU in channels-last memory, where eager convolutions read it without reordering.

    oneDNN's weight gradient of a strided 1x1 convolution of a few channels writes past its memory in this order (torch
    2.14): families that have one on the image keep to the plain order wherever gradients are recorded.
    """
    if torch.jit.is_scripting():  # a traced graph, which calls this, may be scripted
        return x
    else:
        if layout == "plain" or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return x  # compilers choose layouts themselves, and must not see the batch's size here
        if (
            ((training or torch.is_grad_enabled()) and layout == "nhwc_eval")
            or not x.is_cpu
            or x.ndim != 4
            or x.shape[0] < least
        ):
            return x
        return x.contiguous(memory_format=torch.channels_last)


def plain_where_small(x: Tensor, places: int = 2048) -> Tensor:
    """A map of few places (B x H x W) back in ordinary memory, while no gradient is recorded on the CPU.

    The kernels of late stages are large, and for channels-last torch copies each in every pass, which takes longer
    than a small map gains.
    """
    if torch.jit.is_scripting():
        return x
    else:
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_grad_enabled() or not x.is_cpu:
            return x
        return x.contiguous() if x.numel() < places * x.shape[1] else x


def packed(x: Tensor) -> Tensor:
    """A dense result (B, C, H, W) in ordinary memory order, so that callers may `view` it; others as they are."""
    if torch.jit.is_scripting():
        return x
    else:
        return x.contiguous() if isinstance(x, Tensor) and x.ndim == 4 else x


torch.fx.wrap("laid_out")
torch.fx.wrap("packed")
torch.fx.wrap("plain_where_small")
