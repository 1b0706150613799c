"""The kinds of blocks that `byobnet` builds networks of; each takes its sizes and the makers of its layers."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from imgzoo_layers.act import create_act
from imgzoo_layers.conv import ConvNormAct
from imgzoo_layers.drop import drop_path_of
from imgzoo_layers.norm_act import NormAct
from imgzoo_layers.reparam import added, fold_norm, identity_kernel, merged


class Sizes(NamedTuple):
    """(B, dim_in, H, W) -> (B, dim, H/stride, W/stride), `hidden` channels between, dilations of both ends."""

    dim_in: int
    dim: int
    hidden: int
    stride: int
    before: int
    dilation: int
    groups: int
    grid: tuple[int, int]


class Makers(NamedTuple):
    """What makes the layers of a block."""

    norm: NormAct
    conv: Callable[..., ConvNormAct]
    conv_drop: Callable[..., ConvNormAct]
    """The same with DropBlock behind the norm, for the one convolution of a block that has it."""
    gate: Callable[[int], nn.Module]
    attention: Callable[..., Any] | None
    shortcut: Callable[[Sizes], nn.Module | None]
    act: str
    act_out: str | None
    inverted: bool
    extra_conv: bool
    branches: int


class ByobBlock(nn.Module):
    """A block of the table; with `keeps_width` its output has the channels of its input."""

    keeps_width = False


class Residual(ByobBlock):
    """What residual blocks share: the shortcut, stochastic depth, the sum and its activation."""

    last = ""

    def __init__(self, sizes: Sizes, make: Makers, drop_path: float):
        super().__init__()
        self.shortcut = make.shortcut(sizes)
        self.drop_path = drop_path_of(drop_path if self.shortcut is not None else 0.0)
        self.act = create_act(make.act_out, inplace=True)

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        y = self.drop_path(y)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.act(y)

    def zero_init_last(self) -> None:
        """The block starts as its shortcut (arXiv:1706.02677), if it has one."""
        if self.shortcut is not None:
            nn.init.zeros_(self.get_submodule(f"{self.last}.bn").get_parameter("weight"))


class BasicBlock(Residual):
    """Two 3x3 convolutions."""

    last = "conv2_kxk"

    def __init__(self, sizes: Sizes, make: Makers, drop_path: float):
        super().__init__(sizes, make, drop_path)
        self.conv1_kxk = make.conv(sizes.dim_in, sizes.hidden, 3, sizes.stride, dilation=sizes.before)
        self.conv2_kxk = make.conv_drop(sizes.hidden, sizes.dim, 3, dilation=sizes.dilation, groups=sizes.groups,
                                        apply_act=False)  # fmt: skip
        self.attn_last = make.gate(sizes.dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.attn_last(self.conv2_kxk(self.conv1_kxk(x))))


class DarkBlock(Residual):
    """1x1, then 3x3 (arXiv:1804.02767)."""

    last = "conv2_kxk"

    def __init__(self, sizes: Sizes, make: Makers, drop_path: float):
        super().__init__(sizes, make, drop_path)
        self.conv1_1x1 = make.conv(sizes.dim_in, sizes.hidden)
        self.conv2_kxk = make.conv_drop(sizes.hidden, sizes.dim, 3, sizes.stride, dilation=sizes.before,
                                        groups=sizes.groups, apply_act=False)  # fmt: skip
        self.attn_last = make.gate(sizes.dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.attn_last(self.conv2_kxk(self.conv1_1x1(x))))


class EdgeBlock(Residual):
    """3x3, then 1x1."""

    last = "conv2_1x1"

    def __init__(self, sizes: Sizes, make: Makers, drop_path: float):
        super().__init__(sizes, make, drop_path)
        self.conv1_kxk = make.conv_drop(sizes.dim_in, sizes.hidden, 3, sizes.stride, dilation=sizes.before,
                                        groups=sizes.groups)  # fmt: skip
        self.attn = make.gate(sizes.hidden)
        self.conv2_1x1 = make.conv(sizes.hidden, sizes.dim, apply_act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.conv2_1x1(self.attn(self.conv1_kxk(x))))


class BottleneckBlock(Residual):
    """1x1, one or two grouped 3x3, gate, 1x1."""

    last = "conv3_1x1"

    def __init__(self, sizes: Sizes, make: Makers, drop_path: float):
        super().__init__(sizes, make, drop_path)
        hidden, groups = sizes.hidden, sizes.groups
        self.conv1_1x1 = make.conv(sizes.dim_in, hidden)
        self.conv2_kxk = make.conv_drop(hidden, hidden, 3, sizes.stride, dilation=sizes.before, groups=groups)
        self.conv2b_kxk: nn.Module = nn.Identity()
        if make.extra_conv:
            self.conv2b_kxk = make.conv(hidden, hidden, 3, dilation=sizes.dilation, groups=groups)
        self.attn = make.gate(hidden)
        self.conv3_1x1 = make.conv(hidden, sizes.dim, apply_act=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2b_kxk(self.conv2_kxk(self.conv1_1x1(x)))
        return self.join(x, self.conv3_1x1(self.attn(y)))


class SelfAttnBlock(Residual):
    """1x1, attention between positions, norm and activation, 1x1."""

    last = "conv3_1x1"

    def __init__(self, sizes: Sizes, make: Makers, drop_path: float):
        super().__init__(sizes, make, drop_path)
        if make.attention is None:
            raise ValueError("a network with 'self_attn' blocks needs self_attn, the kind of attention")
        self.conv1_1x1 = make.conv(sizes.dim_in, sizes.hidden)
        self.self_attn = make.attention(sizes.hidden, stride=sizes.stride, grid=sizes.grid)
        self.post_attn = make.norm(sizes.hidden)
        self.conv3_1x1 = make.conv(sizes.hidden, sizes.dim, apply_act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.conv3_1x1(self.post_attn(self.self_attn(self.conv1_1x1(x)))))


class MergeableBlock(ByobBlock):
    """What blocks of parallel linear branches share: the sum, a gate, an activation, and merging the branches."""

    branch_names: tuple[str, ...] = ()

    def __init__(self, sizes: Sizes, make: Makers, drop_path: float):
        super().__init__()
        same = sizes.dim_in == sizes.dim and sizes.stride == 1 and sizes.before == sizes.dilation
        self.identity = make.norm(sizes.dim, apply_act=False) if same else None
        self.add_branches(sizes, make)
        self.drop_path = drop_path_of(drop_path if same else 0.0)
        self.attn = make.gate(sizes.dim)
        self.act = create_act(make.act, inplace=True)
        self.reparam_conv: nn.Conv2d | None = None

    def add_branches(self, sizes: Sizes, make: Makers) -> None:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.reparam_conv(x) if self.reparam_conv is not None else self.branches(x)
        return self.act(self.attn(y))

    def branches(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def convolutions(self) -> list[Any]:
        """The branches with a convolution, the largest kernel first."""
        raise NotImplementedError

    def reparameterize(self) -> None:
        """Replace the branches by one convolution, for inference."""
        if self.reparam_conv is not None:
            return
        branches = self.convolutions()
        conv = branches[0].conv
        kernels = [fold_norm(branch.conv.weight, branch.bn) for branch in branches]
        if self.identity is not None:
            eye = identity_kernel(conv.out_channels, conv.groups, conv.kernel_size[0], conv.weight)
            kernels.append(fold_norm(eye, self.identity))
        self.reparam_conv = merged(conv, kernels)
        for name in ("identity", "drop_path", *self.branch_names):
            setattr(self, name, None)


class RepVggBlock(MergeableBlock):
    """3x3, 1x1 and identity, each with a norm (arXiv:2101.03697, figure 4)."""

    branch_names = ("conv_kxk", "conv_1x1")
    groups = 1

    def add_branches(self, sizes: Sizes, make: Makers) -> None:
        self.conv_kxk = make.conv_drop(sizes.dim_in, sizes.dim, 3, sizes.stride, dilation=sizes.before,
                                       groups=self.groups, apply_act=False)  # fmt: skip
        self.conv_1x1 = make.conv(sizes.dim_in, sizes.dim, 1, sizes.stride, groups=self.groups, apply_act=False)

    def branches(self, x: Tensor) -> Tensor:
        y = self.conv_1x1(x) + self.conv_kxk(x)
        if self.identity is not None:
            y = self.drop_path(y) + self.identity(x)
        return y

    def convolutions(self) -> list[Any]:
        return [self.conv_kxk, self.conv_1x1]

    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 0.1, 0.1)
                nn.init.normal_(module.bias, 0, 0.1)


class GroupedRepVggBlock(RepVggBlock):
    """The same in four groups."""

    groups = 4


class MobileOneBlock(MergeableBlock):
    """Several equal 3x3, one 1x1 and identity, each with a norm (arXiv:2206.04040, figure 3)."""

    branch_names = ("conv_kxk", "conv_scale")
    kernel = 3

    def add_branches(self, sizes: Sizes, make: Makers) -> None:
        dims, groups = (sizes.dim_in, sizes.dim), sizes.dim_in if self.keeps_width else 1
        options: dict[str, Any] = dict(stride=sizes.stride, groups=groups, apply_act=False)
        self.conv_kxk = nn.ModuleList(make.conv(*dims, self.kernel, **options) for _ in range(make.branches))
        self.conv_scale = make.conv(*dims, 1, **options) if self.kernel > 1 else None

    def branches(self, x: Tensor) -> Tensor:
        y = self.conv_kxk[0](x)
        for i, conv in enumerate(self.conv_kxk):
            if i > 0:
                y = added(y, conv(x))
        if self.conv_scale is not None:
            y = added(y, self.conv_scale(x))
        if self.identity is not None:
            y = added(self.drop_path(y), self.identity(x))
        return y

    def convolutions(self) -> list[Any]:
        return [*self.conv_kxk, *([self.conv_scale] if self.conv_scale is not None else [])]


class DepthwiseOneBlock(MobileOneBlock):
    """The same, depthwise."""

    keeps_width = True


class PointwiseOneBlock(MobileOneBlock):
    """The same of 1x1 convolutions only."""

    kernel = 1


BLOCK: dict[str, type[ByobBlock]] = {
    "basic": BasicBlock,
    "dark": DarkBlock,
    "edge": EdgeBlock,
    "bottle": BottleneckBlock,
    "self_attn": SelfAttnBlock,
    "rep": RepVggBlock,
    "rep4": GroupedRepVggBlock,
    "one": MobileOneBlock,
    "one_dw": DepthwiseOneBlock,
    "one_pw": PointwiseOneBlock,
}
