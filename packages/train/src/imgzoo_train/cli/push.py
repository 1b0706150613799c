"""`imgzoo push`."""

from __future__ import annotations

from pathlib import Path

import click

from imgzoo.cli.output import say
from imgzoo.errors import UsageError

from .options import refuse_idle


@click.command("push")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--repo", default="", metavar="ORG/NAME", help="repository on the hub")
@click.option("--private", is_flag=True, help="create it private")
@click.option("--card-only", is_flag=True, help="write the model card into best/ and upload nothing")
def command(run: Path, repo: str, private: bool, card_only: bool) -> None:
    """Write a model card for the run folder RUN and upload its best model to the hub."""
    from imgzoo_train.runs.pushing import push, write_card

    refuse_idle(private="repo", repo="not card_only")
    if card_only:
        say(f"card in {write_card(run)}")
        return
    if not repo:
        raise UsageError("say where to: --repo ORG/NAME, or --card-only")
    say(push(run, repo, private=private))
