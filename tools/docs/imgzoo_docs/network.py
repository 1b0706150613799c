"""What a page of the site would fetch from elsewhere when a browser shows it."""

from __future__ import annotations

import re

FOREIGN = re.compile(
    r"""<(?:script|img|iframe|source|embed)\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*>"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|icon|preconnect))[^>]*\bhref=["']?(?:https?:)?//[^>]*>"""
    r"""|(?:url\(|@import\s*)["']?(?:https?:)?//[^)]*"""
)


def fetched(text: str) -> str:
    """The first thing in HTML or CSS that comes from another place, empty where there is none."""
    found = FOREIGN.search(text)
    return found[0] if found else ""
