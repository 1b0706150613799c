"""What the environment says about plugins. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping

from imgzoo.errors import UsageError
from imgzoo.text import safe

from .distributions import canonical
from .find import Plugin


class Switches:
    """Which plugins may load, from the environment; read before anything of a plugin is imported."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        allowed = environ.get("IMGZOO_PLUGINS")
        self.allowed = None if allowed is None else _names(allowed)
        self.denied = _names(environ.get("IMGZOO_DISABLE_PLUGINS", ""))
        self.prefer = _names(environ.get("IMGZOO_PREFER", ""))
        self.strict = environ.get("IMGZOO_STRICT", "") not in ("", "0")
        self.timeout = _seconds(environ.get("IMGZOO_PLUGIN_TIMEOUT", ""))
        self.first_party_only = environ.get("IMGZOO_NO_PLUGINS", "") not in ("", "0")

    def named(self) -> dict[str, frozenset[str]]:
        """The switches that name plugins, and whom."""
        rows = {"IMGZOO_PLUGINS": self.allowed or frozenset(), "IMGZOO_DISABLE_PLUGINS": self.denied}
        return {**rows, "IMGZOO_PREFER": self.prefer}

    def refusal(self, plugin: Plugin) -> str:
        """Why the plugin may not load; empty when it may."""
        names = {*map(canonical, plugin.names)}
        if plugin.name == "core":
            return ""
        if self.first_party_only and not plugin.first_party:
            return "--no-plugins"
        if self.denied & names:
            return "IMGZOO_DISABLE_PLUGINS names it"
        if self.allowed is not None and not self.allowed & names:
            return "IMGZOO_PLUGINS does not name it"
        return ""


def _names(text: str) -> frozenset[str]:
    """Names of plugins or distributions, in any spelling of `-`, `_`, `.` and capitals."""
    return frozenset(map(canonical, re.split(r"[\s,]+", text.strip()))) - {""}


def _seconds(text: str) -> float:
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise UsageError(f"IMGZOO_PLUGIN_TIMEOUT is a number of seconds, not '{safe(text)}'")
    return seconds
