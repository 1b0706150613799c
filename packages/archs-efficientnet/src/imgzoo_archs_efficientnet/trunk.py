"""What all networks of mobile blocks share: a strided stem and stages decoded from strings."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from imgzoo.model import FeatureInfo, ImageModel
from imgzoo_layers.conv import create_conv
from imgzoo_layers.drop import DropPath
from imgzoo_layers.norm_act import NormAct, get_norm_act
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.prune import fit_to_file, out_channels

from .blocks import Common, SqueezeExcite, get_gate, init_mobile_
from .builder import Rounding, build_stages, decode_stages


class MobileTrunk(ImageModel):
    """Stem and stages; a family adds its head in `_add_head`. See `builder` for the strings in `stages`.

    Args:
        stages: blocks of each stage in the notation of the builder ("ir_r2_k3_s2_e6_c24")
        fix_stem: keep the stem's channels whatever `width` says
        round_limit: least share of the channels that rounding down may leave
        depth: factor of the blocks of each stage, one number or one for each
        depth_rounding: "ceil" or "round"
        experts: factor of the experts of mixed convolutions
        group_size: channels of a group of the depthwise convolutions
        gate_fn: what makes the gate's factors
        gate_round: round the gate's hidden channels down to no less than this share; none for no rounding
        gate_from_expanded: the gate's ratio is of the widened channels
    """

    layout = "nhwc"
    flat_levels = False
    norms_act = True

    def __init__(self, stages: Sequence[Sequence[str]], stem_size: int = 32, stem_kernel: int = 3,
                 fix_stem: bool = False, num_features: int = 1280, width: float = 1.0, divisor: int = 8,
                 round_limit: float = 0.9, depth: float | Sequence[float] = 1.0,
                 depth_rounding: Literal["ceil", "round"] = "ceil", experts: int = 1, group_size: int | None = None,
                 norm: str = "batchnorm", norm_group: int | None = None, eps: float | None = None, act: str = "relu",
                 aa: str | None = None, padding: Literal["", "same"] = "", gate: str = "se",
                 gate_act: str | None = None, gate_fn: str = "sigmoid", gate_round: float | None = None,
                 gate_from_expanded: bool = False, layer_scale: float | None = None, in_chans: int = 3,
                 num_classes: int = 1000, global_pool: str = "avg", output_stride: int = 32, drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0, pruned: str | None = None):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.drop_rate = drop_rate
        options = {key: value for key, value in dict(eps=eps, group_size=norm_group).items() if value is not None}
        make_norm = get_norm_act(norm, act, **options)
        rounding = Rounding(width, divisor, round_limit)
        dim = stem_size if fix_stem else rounding(stem_size)
        self.conv_stem = create_conv(in_chans, dim, stem_kernel, 2, padding)
        self.bn1 = make_norm(dim)
        make_gate = partial(SqueezeExcite, gate=gate_fn, round_limit=gate_round) if gate == "se" else get_gate(gate)
        common = Common(make_norm, act, padding, aa, make_gate, gate_act, gate_from_expanded, layer_scale)
        self.blocks, levels = build_stages(decode_stages(stages, depth, depth_rounding), dim, rounding, common,
                                           output_stride, drop_path_rate, group_size, experts)  # fmt: skip
        self._refuse_idle(DropPath, drop_path_rate=drop_path_rate)
        self.global_pool = GlobalPool(global_pool)
        self._add_head(levels[-1].channels, num_features, make_norm, act, padding)
        classifier = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        self.classifier = classifier
        if pruned:
            fit_to_file(self, __package__, pruned, self.global_pool.width)
            levels = [level._replace(channels=out_channels(self.get_submodule(level.module))) for level in levels]
        else:  # what is cut from trained weights keeps torch's initial values
            init_mobile_(self)
        self.feature_info = FeatureInfo(levels)

    def _add_head(self, dim: int, width: int, make_norm: NormAct, act: str, padding: str) -> None:
        """Add what stands between the stages of `dim` channels and the classifier; set the two feature sizes."""
        raise NotImplementedError

    def forward_stages(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.blocks(self.bn1(self.conv_stem(x)))
