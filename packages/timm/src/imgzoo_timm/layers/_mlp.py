"""The mlps of transformers."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from imgzoo_layers import mlp as native

from ._base import adapter, made, placed, two


def layers_of(module: nn.Module, sizes: tuple[int, int, int, int], bias: Any, drop: Any, conv: bool = False) -> None:
    """Where biases or dropouts differ, put the two linear layers `sizes` in, out, in, out, and the dropouts right."""
    biases, drops = two(bias), two(drop)
    for i, (name, start) in enumerate((("fc1", 0), ("fc2", 2))):
        if biases[i] != biases[0]:
            setattr(module, name, native.pointwise(sizes[start], sizes[start + 1], biases[i], conv))
    module.drop1, module.drop2 = nn.Dropout(drops[0]), nn.Dropout(drops[1])


@adapter
@placed
class Mlp(native.Mlp):
    def __init__(self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
                 act_layer: Any = nn.GELU, norm_layer: Any = None, bias: Any = True, drop: Any = 0.0,
                 use_conv: bool = False):  # fmt: skip
        hidden, out = hidden_features or in_features, out_features or in_features
        super().__init__(in_features, hidden, out, act_layer, norm_layer, two(bias)[0], conv=use_conv)
        self.act = made(act_layer)
        layers_of(self, (in_features, hidden, hidden, out), bias, drop, use_conv)


@adapter
@placed
class GluMlp(native.GluMlp):
    def __init__(self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
                 act_layer: Any = nn.Sigmoid, norm_layer: Any = None, bias: Any = True, drop: Any = 0.0,
                 use_conv: bool = False, gate_last: bool = True):  # fmt: skip
        hidden, out = hidden_features or in_features, out_features or in_features
        super().__init__(in_features, hidden, out, act_layer, norm_layer, two(bias)[0], gate_last=gate_last)
        self.chunk_dim = 1 if use_conv else -1
        if use_conv:
            self.fc1 = native.pointwise(in_features, hidden, two(bias)[0], True)
            self.fc2 = native.pointwise(hidden // 2, out, two(bias)[0], True)
        layers_of(self, (in_features, hidden, hidden // 2, out), bias, drop, use_conv)

    def init_weights(self) -> None:
        """Let the gate start near one: its half of the first layer's bias is one, of the weights small."""
        if self.fc1.bias is not None:
            nn.init.ones_(self.fc1.bias[self.fc1.bias.shape[0] // 2 :])  # type: ignore[index]
        nn.init.normal_(self.fc1.weight[self.fc1.weight.shape[0] // 2 :], std=1e-6)  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.fc1(x).chunk(2, dim=getattr(self, "chunk_dim", -1))
        x = first * self.act(second) if self.gate_last else self.act(first) * second
        return self.drop2(self.fc2(self.norm(self.drop1(x))))


SwiGLUPacked = partial(GluMlp, act_layer=nn.SiLU, gate_last=False)


@adapter
@placed
class SwiGLU(native.SwiGlu):
    def __init__(self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
                 act_layer: Any = nn.SiLU, norm_layer: Any = None, bias: Any = True, drop: Any = 0.0,
                 align_to: int = 0):  # fmt: skip
        hidden, out = hidden_features or in_features, out_features or in_features
        if align_to:
            hidden += -hidden % align_to
        super().__init__(in_features, hidden, out, act_layer, norm_layer, two(bias)[0])
        layers_of(self, (in_features, hidden, hidden, out), bias, drop)

    def init_weights(self) -> None:
        """Let the gate start near one."""
        if self.fc1_g.bias is not None:
            nn.init.ones_(self.fc1_g.bias)
        nn.init.normal_(self.fc1_g.weight, std=1e-6)


@adapter
@placed
class GlobalResponseNorm(native.GlobalResponseNorm):
    def __init__(self, dim: int, eps: float = 1e-6, channels_last: bool = True):
        super().__init__(dim, eps, channels_last)


@adapter
@placed
class GlobalResponseNormMlp(native.GlobalResponseNormMlp):
    def __init__(self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
                 act_layer: Any = nn.GELU, bias: Any = True, drop: Any = 0.0, use_conv: bool = False):  # fmt: skip
        hidden, out = hidden_features or in_features, out_features or in_features
        super().__init__(in_features, hidden, act_layer, conv=use_conv)
        biases = two(bias)
        self.fc1 = native.pointwise(in_features, hidden, biases[0], use_conv)
        self.fc2 = native.pointwise(hidden, out, biases[1], use_conv)
        self.drop1, self.drop2 = nn.Dropout(two(drop)[0]), nn.Dropout(two(drop)[1])


@placed
class ConvMlp(nn.Module):
    """Pointwise convolution, norm, activation, dropout, pointwise convolution: (B, C, H, W)."""

    def __init__(self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
                 act_layer: Any = nn.ReLU, norm_layer: Any = None, bias: Any = True, drop: float = 0.0):  # fmt: skip
        super().__init__()
        hidden, biases = hidden_features or in_features, two(bias)
        self.fc1 = nn.Conv2d(in_features, hidden, 1, bias=biases[0])
        self.norm = made(norm_layer, hidden)
        self.act = act_layer()
        self.drop = nn.Dropout(drop)
        self.fc2 = nn.Conv2d(hidden, out_features or in_features, 1, bias=biases[1])

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.drop(self.act(self.norm(self.fc1(x)))))


@placed
class GatedMlp(nn.Module):
    """An mlp with a gate, such as gMLP's spatial one, behind the activation: (B, N, C)."""

    def __init__(self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
                 act_layer: Any = nn.GELU, norm_layer: Any = None, gate_layer: Any = None, bias: Any = True,
                 drop: Any = 0.0):  # fmt: skip
        super().__init__()
        hidden, biases, drops = hidden_features or in_features, two(bias), two(drop)
        self.fc1 = nn.Linear(in_features, hidden, bias=biases[0])
        self.act = act_layer()
        self.drop1 = nn.Dropout(drops[0])
        if gate_layer is not None and hidden % 2:
            raise ValueError(f"a gate halves the hidden width, so it must be even, got {hidden}")
        self.gate = made(gate_layer, hidden)
        hidden = hidden // 2 if gate_layer is not None else hidden
        self.norm = made(norm_layer, hidden)
        self.fc2 = nn.Linear(hidden, out_features or in_features, bias=biases[1])
        self.drop2 = nn.Dropout(drops[1])

    def forward(self, x: Tensor) -> Tensor:
        return self.drop2(self.fc2(self.norm(self.gate(self.drop1(self.act(self.fc1(x)))))))
