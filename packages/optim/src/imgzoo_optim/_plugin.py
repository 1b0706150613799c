"""What imgzoo-optim brings: optimizers, schedules and the command that draws them. No torch."""

from __future__ import annotations

from imgzoo.plugin import CommandSpec, hookimpl

IMGZOO_API = (1, 0)


@hookimpl
def imgzoo_optimizers():
    from .table import optimizers

    return optimizers()


@hookimpl
def imgzoo_schedulers():
    from .table import schedulers

    return schedulers()


@hookimpl
def imgzoo_commands():
    return [CommandSpec("schedule", "imgzoo_optim.cli.schedule:command", "Show or draw a learning-rate schedule.")]
