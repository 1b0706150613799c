"""The field's switches. Networks here script, export and trace as they are, so most have nothing to change."""

from __future__ import annotations

from typing import Any

_state = {"scriptable": False, "exportable": False, "no_jit": False, "fused": True, "fused_all": False,
          "reentrant": False,
          "fast_norm": False}  # fmt: skip


def is_scriptable() -> bool:
    return _state["scriptable"]


def is_exportable() -> bool:
    return _state["exportable"]


def is_no_jit() -> bool:
    return _state["no_jit"]


class _Switch:
    """Sets switches at once; as a context it puts them back."""

    def __init__(self, **modes: Any):
        self.before = dict(_state)
        _state.update({name: bool(mode) for name, mode in modes.items() if mode is not None})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *args: object) -> bool:
        _state.update(self.before)
        return False


class set_scriptable(_Switch):
    def __init__(self, mode: bool):
        super().__init__(scriptable=mode)


class set_exportable(_Switch):
    def __init__(self, mode: bool):
        super().__init__(exportable=mode)


class set_no_jit(_Switch):
    def __init__(self, mode: bool):
        super().__init__(no_jit=mode)


class set_layer_config(_Switch):
    def __init__(self, scriptable: bool | None = None, exportable: bool | None = None, no_jit: bool | None = None,
                 no_activation_jit: bool | None = None):  # fmt: skip
        super().__init__(scriptable=scriptable, exportable=exportable, no_jit=no_jit)


def use_fused_attn(experimental: bool = False) -> bool:
    return _state["fused_all" if experimental else "fused"]


def set_fused_attn(enable: bool = True, experimental: bool = False) -> None:
    """Whether attention of networks that are created from now on runs in torch's fused kernel; `experimental` is for
    layers of a script's own that ask for it."""
    _state["fused"], _state["fused_all"] = enable, enable and experimental


def use_reentrant_ckpt() -> bool:
    return _state["reentrant"]


def set_reentrant_ckpt(enable: bool = True) -> None:
    _state["reentrant"] = enable


def is_fast_norm() -> bool:
    return _state["fast_norm"]


def set_fast_norm(enable: bool = True) -> None:
    """Nothing to change: norms keep to the precision that autocast gives them."""
    _state["fast_norm"] = enable
