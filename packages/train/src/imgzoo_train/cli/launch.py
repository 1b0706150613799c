"""`imgzoo launch`."""

from __future__ import annotations

import sys

import click

from imgzoo.cli.output import say_text
from imgzoo.errors import UsageError

from .options import refuse_idle


@click.command("launch", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-n", "--ranks", default=1, type=click.IntRange(1), help="ranks on this machine")
@click.option("--nodes", default=1, type=click.IntRange(1), help="machines")
@click.option("--node-rank", type=click.IntRange(0), help="number of this machine")
@click.option("--rendezvous", default="", metavar="HOST:PORT", help="one machine that all can reach")
@click.option("--max-restarts", default=0, type=click.IntRange(0), help="restarts after a rank died")
@click.option("--log-dir", default="", help="folder for the output of each rank")
@click.option("--slurm", is_flag=True, help="print an sbatch file instead of starting")
@click.option("--time", default="24:00:00", help="time limit of the sbatch file")
@click.option("--partition", default="", help="partition of the sbatch file")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, required=True)
def command(
    ranks: int,
    nodes: int,
    node_rank: int | None,
    rendezvous: str,
    max_restarts: int,
    log_dir: str,
    slurm: bool,
    time: str,
    partition: str,
    arguments: tuple[str, ...],
) -> None:
    """Run `imgzoo ARGUMENTS` (train or validate) on several ranks: imgzoo launch -n 2 train resnet18 ..."""
    from imgzoo_train.ranks.launching import Plan, launch, sbatch

    refuse_idle(time="slurm", partition="slurm", rendezvous="not slurm", node_rank="not slurm")
    refuse_idle(node_rank="rendezvous")
    if arguments[0] not in ("train", "validate"):
        raise UsageError(f"launch starts train or validate, not '{arguments[0]}'")
    if nodes > 1 and not rendezvous and not slurm:
        raise UsageError("several machines need --rendezvous HOST:PORT, the same on all of them")
    plan = Plan(ranks, nodes, node_rank, rendezvous, max_restarts=max_restarts, log_dir=log_dir)
    if slurm:
        say_text(sbatch(plan, arguments, time, partition))
        return
    sys.exit(launch(plan, arguments))
