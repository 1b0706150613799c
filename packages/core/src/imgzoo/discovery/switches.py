"""What the environment says about plugins. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .find import Plugin


class Switches:
    """Which plugins may load, from the environment; read before anything of a plugin is imported."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        allowed = environ.get("IMGZOO_PLUGINS")
        self.allowed = None if allowed is None else _names(allowed)
        self.denied = _names(environ.get("IMGZOO_DISABLE_PLUGINS", ""))
        self.prefer = _names(environ.get("IMGZOO_PREFER", ""))
        self.strict = environ.get("IMGZOO_STRICT", "") not in ("", "0")
        self.first_party_only = environ.get("IMGZOO_NO_PLUGINS", "") not in ("", "0")

    def refusal(self, plugin: Plugin) -> str:
        """Why the plugin may not load; empty when it may."""
        names = {plugin.name, plugin.short_name, plugin.dist}
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
    return frozenset(re.split(r"[\s,]+", text.strip())) - {""}
