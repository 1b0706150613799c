"""The pages and parts of pages of the documentation site that are written by the code they are about."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from . import api, architecture, changelog, commands, curves, errors, families, settings, timm_flags


@cache
def pages() -> dict[str, str]:
    """Markdown of every page that has no source file, by its path in the site."""
    return {
        "reference/commands.md": commands.page(),
        "reference/configuration.md": settings.page(),
        "reference/errors.md": errors.page(),
        "changelog.md": changelog.page(),
        **api.pages(),
        **families.pages(),
    }


@cache
def fragments() -> dict[str, Callable[[], str]]:
    """What stands in place of `<!-- site: NAME -->` in a page."""
    return {
        "schedules": curves.schedules,
        "optimizers": curves.optimizers,
        "optimizer-table": curves.optimizer_table,
        "architecture": architecture.picture,
        "imports": architecture.counts,
        "timm-flags": timm_flags.compared,
    }
