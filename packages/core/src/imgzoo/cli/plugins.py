"""`imgzoo plugins`: what is installed, in which state, and what it brings."""

from __future__ import annotations

import click

from .output import print_json, print_table


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Show installed plugins, their state, and what they bring."""
    from imgzoo.discovery.manager import Manager, set_manager
    from imgzoo.registry import plugins

    set_manager(Manager(strict=False))  # it shows broken plugins, so it must not stop at the first
    rows = plugins()
    if as_json:
        fields = ("name", "dist", "version", "state", "reason", "value", "api", "ms", "hooks", "items")
        print_json([{field: getattr(plugin, field) for field in fields} for plugin in rows])
        return
    head = ["plugin", "distribution", "version", "state", "api", "brings"]
    print_table([[p.name, p.dist, p.version, p.state, _api(p.api), p.reason or _brings(p.items)] for p in rows], head)


def _api(api: tuple[int, int] | None) -> str:
    return ".".join(map(str, api)) if api else ""


def _brings(items: dict[str, int]) -> str:
    return ", ".join(f"{count} {hook.removeprefix('imgzoo_')}" for hook, count in items.items() if count)
