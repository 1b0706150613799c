"""Names of types that the field's signatures use."""

from collections.abc import Callable

from torch import nn

LayerType = str | Callable[..., nn.Module] | type[nn.Module]
PadType = str | int | tuple[int, int]
