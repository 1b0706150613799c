"""Xception aligned for dense prediction: strided separable convolutions instead of pooling (arXiv:1802.02611)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, swap_in
from imgzoo_layers.conv import ConvNormAct
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.norm_act import BatchNormAct2d, NormAct
from imgzoo_layers.util import dilate


class SeparableConv2d(nn.Module):
    """Depthwise 3x3 and 1x1, each with a norm, and with an activation where `activate` is set."""

    def __init__(self, dim: int, dim_out: int, stride: int, dilation: int, norm: NormAct, activate: bool):
        super().__init__()
        self.conv_dw = nn.Conv2d(dim, dim, 3, stride, dilation, dilation, dim, bias=False)
        self.bn_dw = norm(dim, apply_act=activate)
        self.conv_pw = nn.Conv2d(dim, dim_out, 1, bias=False)
        self.bn_pw = norm(dim_out, apply_act=activate)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn_pw(self.conv_pw(self.bn_dw(self.conv_dw(x))))


class PreSeparableConv2d(nn.Module):
    """Norm and activation (where there is a norm), depthwise 3x3, 1x1."""

    def __init__(self, dim: int, dim_out: int, stride: int, dilation: int, norm: NormAct):
        super().__init__()
        self.norm = norm(dim)
        self.conv_dw = nn.Conv2d(dim, dim, 3, stride, dilation, dilation, dim, bias=False)
        self.conv_pw = nn.Conv2d(dim, dim_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_pw(self.conv_dw(self.norm(x)))


class Block(nn.Module):
    """Three separable convolutions on a residual, the last strided: (B, C, H, W) -> (B, dims[-1], H/stride, W/stride).

    `skip` is off in the last block of the network, whose activations follow the convolutions.
    """

    def __init__(self, dim: int, dims: Sequence[int], stride: int, dilation: int, norm: NormAct, skip: bool,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.skip = skip
        project = skip and (dim != dims[-1] or stride > 1)
        self.shortcut = self.make_shortcut(dim, dims[-1], stride, norm) if project else nn.Identity()
        self.norm = self.make_norm(dim, norm)
        self.stack = nn.Sequential()
        for i, dim_out in enumerate(dims, 1):
            self.add_conv(i, dim, dim_out, stride if i == len(dims) else 1, dilation, norm)
            dim = dim_out
        self.drop_path = drop_path_of(drop_path if skip else 0.0)

    def make_norm(self, dim: int, norm: NormAct) -> nn.Module:
        return nn.Identity()

    def make_shortcut(self, dim: int, dim_out: int, stride: int, norm: NormAct) -> nn.Module:
        return ConvNormAct(dim, dim_out, 1, stride, norm=norm, apply_act=False)

    def add_conv(self, i: int, dim: int, dim_out: int, stride: int, dilation: int, norm: NormAct) -> None:
        if self.skip:
            self.stack.add_module(f"act{i}", nn.ReLU(inplace=i > 1))  # the first would write over the shortcut
        self.stack.add_module(f"conv{i}", SeparableConv2d(dim, dim_out, stride, dilation, norm, not self.skip))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.join(self.stack(x), x)

    def join(self, y: Tensor, x: Tensor) -> Tensor:
        return self.drop_path(y) + self.shortcut(x) if self.skip else y


class PreBlock(Block):
    """The same with norm and activation before each convolution, the shortcut behind the first."""

    def make_norm(self, dim: int, norm: NormAct) -> nn.Module:
        return norm(dim)

    def make_shortcut(self, dim: int, dim_out: int, stride: int, norm: NormAct) -> nn.Module:
        return nn.Conv2d(dim, dim_out, 1, stride, bias=False)

    def add_conv(self, i: int, dim: int, dim_out: int, stride: int, dilation: int, norm: NormAct) -> None:
        conv = PreSeparableConv2d(dim, dim_out, stride, dilation, norm if i > 1 else nn.Identity)
        self.stack.add_module(f"conv{i}", conv)


class Cut:
    """In front of a block that ends with a level inside it."""

    def join(self, y: Tensor, x: Tensor) -> Tensor:
        return y


class XceptionAligned(ImageModel):
    """Args:
    entry: width and stride of each block before the middle ones
    middle: number of middle blocks
    """

    exchanged = (Acts("relu"), Norms("batchnorm"))
    norms_act = None
    parts = ImageModel.parts._replace(stages=("blocks",), norm=("act",))
    layer_groups = {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}

    def __init__(self, entry: Sequence[tuple[int, int]] = ((128, 2), (256, 2), (728, 2)), middle: int = 8,
                 preact: bool = False, eps: float = 1e-3, num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", output_stride: int = 32, drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        norm = partial(BatchNormAct2d, eps=eps)
        dim, reached, levels = 64, 2, []
        second = nn.Conv2d(32, dim, 3, 1, 1, bias=False) if preact else ConvNormAct(32, dim, 3, norm=norm)
        self.stem = nn.Sequential(ConvNormAct(in_chans, 32, 3, 2, norm=norm), second)
        shapes = [((width, width, width), stride) for width, stride in entry]
        shapes += [((728, 728, 728), 1)] * middle + [((728, 1024, 1024), 2), ((1536, 1536, 2048), 1)]
        steps = dilate([stride for _, stride in shapes], output_stride, start=2)
        blocks: list[nn.Module] = []
        for i, (drop, (stride, dilation, _)) in enumerate(zip(drop_path_rates(drop_path_rate, len(shapes))[0], steps)):
            dims, wanted = shapes[i]
            if wanted > 1:  # a level is what the block has before it subsamples
                levels.append(Feature(dims[1], reached, f"blocks.{i}.stack.{'conv2' if preact else 'act3'}"))
            skip = i < len(shapes) - 1
            blocks.append((PreBlock if preact else Block)(dim, dims, stride, dilation, norm, skip, drop))
            dim, reached = dims[-1], reached * stride
        levels.append(Feature(dim, reached, f"blocks.{len(blocks) - 1}"))
        self.blocks = nn.Sequential(*blocks)
        self.act = nn.ReLU() if preact else nn.Identity()
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate)
        self.head_hidden_size = dim * self.head.global_pool.width

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 2048, H/32, W/32)
        return self.act(self.blocks(self.stem(x)))

    def _advance(self, path: str, step: Any, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """A strided block is run layer by layer, since a level lies in it."""
        if not any(level.module.startswith(f"{path}.") for level in self.feature_info.levels):
            return super()._advance(path, step, x)
        x = step.norm(x)
        y, outputs = x, {}
        for name, layer in step.stack.named_children():
            y = layer(y)
            outputs[f"{path}.stack.{name}"] = y
        x = step.join(y, x)
        return x, {path: x, **outputs}

    def _cut(self, level: str, chosen: list[int]) -> None:
        """Of a block with a level inside, the layers up to it remain, without the shortcut."""
        path, inside, name = level.partition(".stack.")
        if inside:
            block: Any = self.get_submodule(path)
            names = list(dict(block.stack.named_children()))
            for later in names[names.index(name) + 1 :]:
                delattr(block.stack, later)
            block.shortcut = nn.Identity()
            swap_in(block, Cut)
