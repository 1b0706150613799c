"""`imgzoo train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from imgzoo.cli.output import print_json, say, say_text
from imgzoo.errors import UsageError
from imgzoo_train.config.settings import output_folder

from .options import Grouped, config_options, existing_config, read_config


@click.command("train", cls=Grouped)
@config_options
@click.option("--resume", is_flag=True, help="go on with the run in --output, from its newest good checkpoint")
@click.option("--auto-resume", is_flag=True, help="go on with the run in --output if there is one, else begin it")
@click.option("--dry-run", is_flag=True, help="print the plan and the schedule, train nothing")
@click.option("--recipes", is_flag=True, help="list recipes and leave")
@click.option("--find-lr", is_flag=True, help="try learning rates and print the best, train nothing")
@click.option("--find-batch", is_flag=True, help="find the largest batch that fits, train nothing")
@click.option("--profile", is_flag=True, help="write a trace of ten updates to the run folder, train nothing more")
@click.option("--json", "as_json", is_flag=True, help="print the summary as JSON")
@click.option("--quiet", is_flag=True, help="print nothing but the summary")
def command(
    config_file: Path | None,
    settings: tuple[str, ...],
    resume: bool,
    auto_resume: bool,
    dry_run: bool,
    recipes: bool,
    find_lr: bool,
    find_batch: bool,
    profile: bool,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Train MODEL on --data, or go on with a run."""
    if recipes:
        from imgzoo_train.config.recipes import describe_recipes

        say_text(describe_recipes())
        return
    output = flags.get("run__output")
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"  # a rank died: go on with its run
    if (auto_resume or restarted) and output is not None:
        resume = resume or (Path(output) / "config.toml").is_file()
    if resume and config_file is None:
        if not output:
            raise UsageError("--resume needs the folder of the run: add --output DIR")
        config_file = existing_config(str(output))
    config = read_config(config_file, settings, flags)
    config.run.output = output_folder(config)

    modes = {"dry-run": dry_run, "find-lr": find_lr, "find-batch": find_batch, "profile": profile}
    chosen = [mode for mode, on in modes.items() if on]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} train nothing, each in its way: give one of them")
    if chosen:
        from imgzoo_train.runs import planning

        say_text(planning.act(chosen[0], config))
        return
    from imgzoo_train.runs.trainers import trainer

    summary = trainer(config)(config, resume=resume, quiet=quiet or as_json)
    if os.environ.get("RANK", "0") != "0":  # the main rank speaks
        return
    if as_json:
        print_json(summary)
        return
    scores = ", ".join(f"{name} {value:.4g}" for name, value in summary["best"].items())
    say(f"best at step {summary['best_step']} ({summary['best_weights']} weights): {scores}")
    say(f"model in {summary['folder']}/best, report in {summary['folder']}/report.html")
