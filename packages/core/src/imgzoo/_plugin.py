"""What the core itself brings, through the same hooks as every plugin."""

from __future__ import annotations

from .plugin import CommandSpec, HealthCheck, hookimpl

IMGZOO_API = (1, 0)

COMMANDS = (
    CommandSpec(
        "list", "imgzoo.cli.listing:command", "List models, optimizers and everything else plugins bring.", "core"
    ),
    CommandSpec("info", "imgzoo.cli.info:command", "Show what is known of a model.", "core"),
    CommandSpec("explore", "imgzoo.cli.explore:command", "Write a page to look through all models.", "core"),
    CommandSpec("plugins", "imgzoo.cli.plugins:command", "Show installed plugins and their state.", "core"),
    CommandSpec("doctor", "imgzoo.cli.doctor:command", "Find out what is wrong with the installation.", "core"),
    CommandSpec("check", "imgzoo.cli.check:command", "Run the conformance checks on a plugin.", "core"),
    CommandSpec("weights", "imgzoo.cli.weights:command", "Lock, bundle, verify and convert weights.", "core"),
    CommandSpec("new-plugin", "imgzoo.cli.new_plugin:command", "Write the skeleton of a plugin.", "core"),
)


@hookimpl
def imgzoo_commands():
    return COMMANDS


@hookimpl
def imgzoo_health_checks():
    return [HealthCheck("cache", "imgzoo.discovery.doctor:check_cache", "Weights can be cached.")]
