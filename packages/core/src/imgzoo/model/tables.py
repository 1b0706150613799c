"""Tables that follow the size of the image: declared by modules, served here once.

A module (or the network itself) says in `tables` which parameters and buffers are tables, and of which kind; the kinds
are in `imgzoo_layers.tables`. A kind resizes (`resize`), tells the size of a foreign table (`size_of`), replaces one
(`place`) or, where `computed`, fills a buffer (`fill`).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from imgzoo.errors import CapabilityError, UsageError
from imgzoo.options import plain_numbers

Size = tuple[int, int]


def pair(value: Any, what: str) -> Size:
    """A number as (n, n), two numbers as they are; anything else is a `UsageError`."""
    value = plain_numbers(value)
    sides = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):
        raise UsageError(f"{what} is a number of pixels or two of them, at least 1, not {value!r}")
    return sides


def tables_of(model: nn.Module, computed: bool = False) -> Iterator[tuple[str, nn.Module, str, Any]]:
    """Every table that is a parameter, or that is computed: its key, the module that declares it, its name there, its
    kind."""
    for prefix, module in model.named_modules():
        for name, kind in getattr(module, "tables", {}).items():
            if kind.computed == computed:
                yield f"{prefix}.{name}" if prefix else name, module, name, kind


def owner_of(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds the parameter of a dotted name, and its name there."""
    path, _, last = name.rpartition(".")
    return module.get_submodule(path), last


def refill(model: nn.Module) -> None:
    """Compute all buffers that state dicts do not hold."""
    for module in model.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()  # type: ignore[operator]


def fit_tables(state: dict[str, Tensor], model: nn.Module) -> list[str]:
    """Resize the tables in `state` to those of the model; a sentence for each. What cannot be told stays as it is.

    Buffers that the model computes are its own, whatever the file holds.
    """
    for key, module, _, kind in tables_of(model, computed=True):
        if key in state:
            del state[key]
            if kind.stored:
                state[key] = kind.value(module)
    notes = []
    for key, module, name, kind in tables_of(model):
        value = state.get(key)
        holder, last = owner_of(module, name)
        own = getattr(holder, last, None)
        if value is None or own is None or value.shape == own.shape or value.ndim != own.ndim:
            continue
        new = getattr(module, kind.size)
        old = kind.size_of(value, own, new)
        if old is not None and old != new:
            state[key] = kind.resize(value, old, new)
            notes.append(f"{key}: {kind.noun} {old[0]}x{old[1]} resized to {new[0]}x{new[1]}")
    return notes


@contextmanager
def unchanged_if_refused(model: nn.Module) -> Iterator[None]:
    """Put every module back as it was if the body raises."""
    before = [(module, {k: copied(v) for k, v in vars(module).items()}) for module in model.modules()]
    try:
        yield
    except BaseException:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)
        raise


def copied(value: Any) -> Any:
    return value.copy() if isinstance(value, (dict, list, set)) else value


class Sized(nn.Module):
    """What a network does about sizes. A family declares `tables`, and in `sized` what else follows the size."""

    tables: ClassVar[Any] = {}
    if TYPE_CHECKING:  # TorchScript would read annotations
        img_size: Size

    def sized(self) -> Iterable[tuple[nn.Module, Size]]:
        """Modules that are made for maps of one size, each with that size now; their `set_size` is called with it."""
        return ()

    def fit_size(self, img_size: Size, **options: Any) -> None:
        """Take another image size (and family options): set attributes; tables and buffers follow by themselves."""
        if options:
            raise CapabilityError(f"{type(self).__name__} has no {', '.join(options)} to set")
        self.img_size = img_size
        for module, size in self.sized():
            module.set_size(size)  # type: ignore[operator]

    def set_input_size(self, img_size: int | Size | None = None, **options: Any) -> None:
        """Prepare the model for another image size, or options of its family such as `patch_size` and `window_size`.

        A network without position tables takes any size already. What is refused leaves the model as it was; frozen
        tables stay frozen, device and dtype stay.
        """
        size = pair(img_size, "img_size") if img_size is not None else getattr(self, "img_size", None)
        if not hasattr(self, "img_size"):
            if options:
                raise CapabilityError(f"{type(self).__name__} has no {', '.join(options)} to set")
            self._remember_size(size, {})
            return
        assert size is not None
        with unchanged_if_refused(self), torch.no_grad():
            before = [(module, name, kind, getattr(module, kind.size)) for _, module, name, kind in tables_of(self)]
            try:
                self.fit_size(size, **options)
            except ValueError as error:
                raise error if isinstance(error, UsageError) else UsageError(str(error)) from error
            for module, name, kind, old in before:
                new = getattr(module, kind.size)
                if min(new) < 1:
                    raise UsageError(f"{type(self).__name__} takes no image as small as img_size={size}")
                holder, last = owner_of(module, name)
                table = getattr(holder, last, None)
                if new != old and table is not None:
                    kind.place(holder, last, kind.resize(table.detach(), old, new), new)
            refill(self)
        self._remember_size(size, options)

    def _remember_size(self, size: Size | None, options: dict[str, Any]) -> None:
        """Let preprocessing and saved files know of the change."""
        network: Any = self
        if size is not None and network.pretrained_cfg:
            network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (network.in_chans, *size)}
        network.model_args = {**network.model_args, **self.size_options(**options)}

    def size_options(self, **options: Any) -> dict[str, Any]:
        """Options of `set_input_size` as constructor options, which rebuild the model as it is now."""
        return options

    def fit_state(self, state: dict[str, Tensor]) -> list[str]:
        """Resize the tables of a checkpoint to this model's sizes; a sentence for every change."""
        return fit_tables(state, self)

    def init_non_persistent_buffers(self) -> None:
        """Compute this module's own buffers that state dicts do not hold; networks whose `tables` do not say how may
        override it."""
        for name, kind in self.tables.items():
            if kind.computed:
                kind.fill(self, name)

    def refill_buffers(self) -> None:
        """Compute all such buffers, of every module: after `to_empty` of a network that had values."""
        refill(self)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        unreal = any(buffer is not None and buffer.is_meta for buffer in self._buffers.values())
        super()._apply(fn, recurse)
        if unreal:  # nobody else can have filled what no state dict holds
            self.init_non_persistent_buffers()
        return self

    def take_any_size(self) -> None:
        """Take images of any size from now on: networks that have the option `dynamic_img_size` can."""
        self.dynamic_img_size = True  # type: ignore[assignment]

    def sized_input(self, x: Tensor) -> Tensor:
        """The image as it is, after a check that it has the size that the model is made for, where it is for one."""
        return x if getattr(self, "dynamic_img_size", False) else check_size(x, self.img_size)


def check_size(x: Tensor, size: Size) -> Tensor:
    if x.shape[-2] != size[0] or x.shape[-1] != size[1]:
        raise ValueError("the image has another size than the model: use set_input_size or img_size")
    return x


def check_divides(x: Tensor, step: Size) -> Tensor:
    if x.shape[-2] % step[0] != 0 or x.shape[-1] % step[1] != 0:
        raise ValueError("the image does not divide into whole patches")
    return x


torch.fx.wrap("check_size")
torch.fx.wrap("check_divides")
