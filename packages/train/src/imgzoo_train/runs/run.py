"""A training run: builds the parts, feeds `fit` epoch by epoch, and what is periodic is a row."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from imgzoo.guard import attempt
from imgzoo.memory import keep_memory
from imgzoo.text import counted, json_text, safe, told
from imgzoo_train.config.settings import Config, output_folder
from imgzoo_train.files import storage
from imgzoo_train.files.checkpoints import Checkpoints, Retention, folder_name
from imgzoo_train.loop.fit import Row, fit
from imgzoo_train.loop.nonfinite import Guard, Rollback
from imgzoo_train.loop.state import State
from imgzoo_train.ranks.signals import Interrupted, Signals
from imgzoo_train.ranks.world import World, join_world
from imgzoo_train.reporting import page, reading, record
from imgzoo_train.scores.evaluation import Evaluation, evaluate
from imgzoo_train.scores.metrics import score_name
from imgzoo_train.techniques import adapters, batch_norm
from imgzoo_train.techniques.precision import reproducible
from imgzoo_train.terminal.progress import Bar

from . import assembly, checks, resuming
from .best import check_written, full_weights, judge, summary_of, writer
from .folder import RunFolder
from .loggers import Loggers

ROWS = ("poll", "train", "save", "eval", "end")
"""Rows of a run in their order; a checkpoint names the first that was not done at its step."""


Callback = Callable[["Run", Mapping[str, Any]], None]
"""`callback(run, row)` after each row of `metrics.jsonl`; `run.state.stop = True` ends the run after the update."""


def train(
    config: Config, *, resume: bool = False, quiet: bool = False, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Train as `config` says; returns the summary of the run (best scores, step, folder).

    `callbacks` are called on the main rank with the run and each row: `kind` is `train`, `eval`, and at last `end` with
    the summary. What they raise ends the run.

    Raises `Interrupted` after a signal, with everything saved; typed errors for anything the user can mend.
    """
    config.run.output = output_folder(config)
    checks.check_settings(config, resume=resume, output=os.environ.get("RANK", "0") == "0")
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    keep_memory()  # activations of one step serve the next
    with (
        reproducible(config.run.deterministic),
        join_world(config.run.device, config.run.stall) as world,
        Signals(world, config.run.stall) as signals,
    ):
        return Run(config, world, signals, quiet=quiet, callbacks=callbacks).go(resume)


class Run:
    """The parts of one run, and the rows that `fit` calls."""

    def __init__(
        self,
        config: Config,
        world: World,
        signals: Signals,
        *,
        quiet: bool = False,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.config, self.world, self.signals, self.quiet = config, world, signals, quiet
        self.callbacks = callbacks if world.main else ()
        self.folder = RunFolder(Path(config.run.output))
        self.sources = assembly.open_sources(config)
        model = assembly.build_model(config, self.sources.classes, self.sources.names)
        self.transform = assembly.data_config(config, model, self.sources)
        quarantine = self.folder.path / "quarantine.jsonl"
        self.loaders = assembly.build_loaders(config, model, self.sources, self.transform, world, quarantine)
        self.state = assembly.build_state(config, model, world, self.loaders.updates)
        self.loss = assembly.build_loss(config, self.sources, self.state)
        self.schedule = assembly.build_schedule(config, self.state, self.loaders.updates)
        self.state.updates = self.loaders.updates
        self.state.samples = config.data.batch_size * config.optim.accumulate * world.size
        self.data = resuming.describe_data(self.sources.train, self.sources.names)
        self.judged = resuming.judged_by(config, self.sources.validation)
        self.fresh = resuming.fields_of(self.state.optimizer)
        self.changes: resuming.Changes = {}
        self.guard = Guard(config.run.nonfinite, config.run.max_nonfinite, self.record_bad if world.main else None)
        self.store = Checkpoints(
            self.folder.checkpoints,
            Retention(config.run.keep_last, config.run.keep_best),
            warn=self.say,
        )
        self.bar: Bar | None = None
        self.loggers = Loggers([])
        self.started = time.perf_counter()

    def say(self, text: str) -> None:
        """Tell the user something, from the main rank."""
        if self.bar is not None:
            self.bar.say(text)
        elif self.world.main and not self.quiet:
            Bar(0, 0).say(text)

    @property
    def epoch(self) -> int:
        """Epochs that are complete at the present step."""
        return self.state.position // self.loaders.updates

    @property
    def steps(self) -> int:
        """The last step."""
        return self.config.run.epochs * self.loaders.updates + self.state.shift

    def go(self, resume: bool) -> dict[str, Any]:
        """Train to the end, alone in the run folder; returns the summary."""
        alone = storage.held(storage.make_folder(self.folder.path)) if self.world.main else nullcontext()
        with alone:
            self.prepare(resume)
            self.run()
            return self.finish()

    def run(self) -> None:
        """Save and pass on a signal; go back and leave out a broken update where asked to."""
        with ExitStack() as stack:
            every, score = self.loaders.updates, score_name(self.config)
            shown = Bar(self.steps, self.state.step, every, score, quiet=self.quiet, shown=self.world.main)
            self.bar = stack.enter_context(shown)
            if self.world.main:
                self.loggers = stack.enter_context(Loggers.open(self.config, self.folder.path, self.say))
            try:
                self.signals.poll()
                while True:
                    try:
                        self.fit_epochs()
                        break
                    except Rollback:
                        self.roll_back()
            except Interrupted as error:
                self.save(self.state, final=True)
                there = (self.folder.checkpoints / folder_name(self.state.step)).is_dir()
                saved = f"step {self.state.step} is saved" if there else "nothing newer could be saved"
                self.say(f"{error}; {saved}, go on with --resume")
                raise
            finally:
                self.store.wait()

    def prepare(self, resume: bool) -> None:
        """Begin the run folder, or load the newest good checkpoint."""
        if not resume:
            if self.world.main:
                self.folder.create(self.config)
                self.folder.describe(self.sources.splits, self.world)
                sheet = partial(record.write_seen, self.folder.path, self.loaders.train, self.sources.names)
                self.unharmed(sheet, "sheet of inputs")
                for line in (
                    *self.sources.splits.lines(),
                    *getattr(self.state.plain, "changes", ()),
                    *checks.worth_saying(self.config, self.data["count"], self.world.size),
                ):
                    self.say(line)
            self.world.barrier()
            if self.config.run.nonfinite == "rollback":
                self.save(self.state, final=True)
            return
        self.changes = resuming.changes(Config.load(self.folder.config_file), self.config)
        self.load_newest()
        self.say(f"going on from step {self.state.step}, epoch {self.state.position / self.loaders.updates:.4g}")
        if self.changes:
            self.say(f"changed since: {resuming.describe(self.changes)}")
        if self.epoch >= self.config.run.epochs and self.state.rows_done is None:
            self.say(f"all {self.config.run.epochs} epochs are done; a larger --epochs goes on")
        self.world.barrier()
        if self.world.main:
            self.folder.sweep()
            self.folder.describe(self.sources.splits, self.world)
            self.folder.write_config(self.config)

    def load_newest(self) -> None:
        """Take over the newest checkpoint that verifies; without any the run begins anew."""
        self.store.wait()
        self.world.barrier()
        found = self.store.newest()
        if found is None:
            self.rewind(-1, {})
            return
        told = [words] if (words := resuming.take_over(self.state, found, self.data)) else []
        resuming.apply_to_groups(self.state.optimizer, self.fresh, self.changes)
        before = {**self.judged, **self.state.best.get("judged_by", {})}
        if before["validation"] != self.judged["validation"]:
            told.append("the validation data holds other files than when this was saved")
        for line in (*told, *(self.sources.splits.lines() if told else ())):
            self.say(line)
        more = self.epoch < self.config.run.epochs or self.state.rows_done is not None
        if more and before != self.judged:
            self.state.best = {}
            self.say("scores are measured in another way than before: the best weights are chosen anew")
        self.store.retention.pinned = set(self.state.pinned)
        self.store.scores = {int(step): score for step, score in self.state.best.get("scores", {}).items()}
        done = len(ROWS) if self.state.rows_done is None else self.state.rows_done
        self.rewind(self.state.step, {kind: ROWS.index(kind) < done for kind in ("train", "eval")})
        self.world.barrier()
        if self.epoch >= (self.config.model.unfreeze_epoch or self.config.run.epochs + 1):
            self.unfreeze()

    def rewind(self, step: int, kinds: Mapping[str, bool]) -> None:
        """Drop the rows of metrics after `step`, on the main rank."""
        damaged = self.folder.rewind(step, kinds) if self.world.main else 0
        if damaged:
            lines = counted(damaged, "damaged line")
            self.say(f"{lines} of metrics.jsonl left out; the file as it was is metrics.damaged.jsonl")

    def fit_epochs(self) -> None:
        """Call `fit` for each epoch that is left."""
        config, state, clip = self.config, self.state, assembly.build_clip(self.config, self.state)
        while (state.step < self.steps and not state.stop) or state.rows_done is not None:
            if self.epoch == config.model.unfreeze_epoch:
                self.unfreeze()
            inside = state.position % self.loaders.updates
            pending = state.rows_done is not None and inside == 0 and state.position > 0
            epoch = self.epoch - pending
            self.loaders.train.seek(epoch, (self.loaders.updates if pending else inside) * config.optim.accumulate)
            with checks.explained(config):
                fit(
                    state,
                    self.loaders.train,
                    self.loss,
                    self.schedule,
                    self.steps,
                    rows=self.rows(),
                    accumulate=config.optim.accumulate,
                    clip=clip,
                    guard=self.guard,
                )

    def unfreeze(self) -> None:
        """Let everything train from here on."""
        adapters.unfreeze(self.state.plain)

    def rows(self) -> list[Row]:
        """What is periodic, in the order of `ROWS`."""
        run, updates = self.config.run, self.loaders.updates
        return [
            (1, self.poll),
            (run.log_every or max(1, updates // 10), self.log),
            (1, self.save_if_due),
            (updates, self.evaluate_epoch),
            (1, self.save_last),
        ]

    def poll(self, state: State) -> None:
        """Move the bar and leave on a signal."""
        if self.bar is not None:
            self.bar.step(state.step)
        self.signals.poll()

    def write(self, kind: str, figures: Mapping[str, Any]) -> None:
        """Write a row of metrics and pass it to loggers."""
        row = {"kind": kind, "step": self.state.step, "epoch": round(self.state.position / self.loaders.updates, 4)}
        row |= {**figures, "seconds": round(time.perf_counter() - self.started, 3)}
        if self.world.main:
            self.unless_full(lambda: self.folder.append(row), "a row of metrics.jsonl")
            self.loggers.log(row)
        for callback in self.callbacks:
            callback(self, row)
        if self.bar is not None:
            self.bar.row(row)

    def log(self, state: State) -> None:
        """Write means since the last log row."""
        figures = state.meters.take()
        learning_rate = max(float(group["lr"]) for group in state.optimizer.param_groups)
        self.write("train", {"lr": learning_rate, **figures})

    def record_bad(self, row: dict[str, Any]) -> None:
        """Note what a broken update looked like."""
        self.unless_full(lambda: storage.append_row(self.folder.path / "nonfinite.jsonl", row), "nonfinite.jsonl")

    def evaluate_epoch(self, state: State) -> None:
        """Score raw and averaged weights at the end of an epoch; keep the best; stop when nothing gets better."""
        if not self.evaluates(state):
            return
        batch_norm.distribute_statistics(state.plain, self.world, self.config.run.dist_bn)
        start = time.perf_counter()
        results = {"": self.score()}
        for name, average in state.averages.items():
            if average.updates:
                with average.applied(state.plain):
                    batch_norm.distribute_statistics(state.plain, self.world, self.config.run.dist_bn)
                    results[f"_{name}"] = self.score()
        figures = {f"{key}{name}": value for name, found in results.items() for key, value in found.metrics.items()}
        self.keep_best(results)
        self.write("eval", {**figures, "eval_seconds": round(time.perf_counter() - start, 3)})
        if self.world.main:
            self.unless_full(self.folder.write_summary, "summary.csv")
        for key, found in results.items():
            if broken := found.metrics.get("nonfinite"):
                weights = key.removeprefix("_") or "raw"
                self.say(f"with {weights} weights the outputs of {broken} validation images are no finite number")

    def score(self) -> Evaluation:
        """Evaluate the weights that the model now holds."""
        return evaluate(
            self.state.plain if not self.state.sharded else self.state.model,
            self.loaders.validation,
            classes=self.sources.align.classes,
            task=self.config.loss.task,
            threshold=self.config.loss.threshold,
            align=self.sources.align,
            advice="--max-bad-val",
            world=self.world,
            precision=self.state.precision,
            steps=self.loaders.eval_steps,
            poll=self.signals.poll,
        )

    def keep_best(self, results: Mapping[str, Evaluation]) -> None:
        """Compare with the best so far, whichever weights it came from; count evaluations without a better one."""
        name, best, patience = score_name(self.config), self.state.best, self.config.run.patience
        best["judged_by"] = self.judged
        variant, better = judge(best, self.state.step, name, results)
        self.store.scores[self.state.step] = best["scores"][str(self.state.step)]
        if better or ("oriented" not in best and self.epoch == self.config.run.epochs):
            self.save_best(variant, results[variant])
        if not better and patience and best["waited"] >= patience:
            self.say(f"no better {name} for {best['waited']} evaluations: the run ends here")
            self.state.stop = True

    def save_best(self, variant: str, found: Evaluation) -> None:
        """Write the present weights, or the average called `variant`, to `best/`, and how they answered."""
        average = self.state.averages.get(variant.removeprefix("_"))
        with average.applied(self.state.plain) if average else nullcontext():
            weights = full_weights(self.state)
        if self.world.main:
            write = writer(self.config, self.sources, self.state, weights)
            if self.unless_full(lambda: self.folder.replace_best(write), "best/"):
                self.state.best["written"] = self.state.step
            facts = {"step": self.state.step, "epoch": self.epoch, "weights": variant.removeprefix("_") or "raw"}
            write = partial(record.write_evaluation, self.folder.path, found, self.sources, self.config.loss, **facts)
            self.unharmed(write, "record of the answers")

    def unless_full(self, write: Callable[[], None], what: str) -> bool:
        """Write something; on a full disk the run says so and goes on. Returns whether it is written."""
        try:
            write()
        except Exception as error:
            if not storage.is_disk_full(error):
                raise
            self.say(f"no space left, the run goes on without {what}")
            return False
        return True

    def unharmed(self, write: Callable[[], Any], what: str) -> None:
        """Write something for people to look at; whatever goes wrong is said, and the run goes on."""
        _, error = attempt(write)
        if error is not None:
            self.say(f"no {what}: {safe(told(error))}; everything else is written")

    def evaluates(self, state: State) -> bool:
        """Whether this step is evaluated."""
        whole = state.position % self.loaders.updates == 0
        return whole and (self.epoch % self.config.run.eval_every == 0 or state.step >= self.steps)

    def save_if_due(self, state: State) -> None:
        """Save at every `save_every`-th update, or epoch, at milestones, and before whatever is evaluated."""
        run, whole = self.config.run, state.position % self.loaders.updates == 0
        milestone = bool(run.milestone) and whole and self.epoch % run.milestone == 0
        if milestone:
            state.pinned.append(state.step)
            self.store.retention.pinned.add(state.step)
        evaluates = self.evaluates(state)
        if evaluates or milestone or state.position % (run.save_every or self.loaders.updates) == 0:
            self.save(state, rows_done=ROWS.index("eval") if evaluates else None)

    def save_last(self, state: State) -> None:
        """Save at the end, with what the last evaluation found."""
        if state.stop or state.step >= self.steps:
            self.save(state)

    def save(self, state: State, *, rows_done: int | None = None, final: bool = False) -> None:
        """Write a checkpoint in the background, after which the row `rows_done` is the next.

        With `final`, wait until it is on the disk; then the rows done are those that are done.
        """
        pending = state.rows_done
        if not final:
            state.rows_done = rows_done
        parts = {**state.parts(), "data": self.data}
        state.rows_done = pending
        if self.world.main:
            self.store.save(state.step, parts)
            if final:
                self.store.wait()
        self.world.barrier()

    def roll_back(self) -> None:
        """Load the last checkpoint and leave out the update that broke."""
        broken, bad = self.state.step, self.state.bad_steps
        skipped, factor = [*self.state.skipped, broken], self.state.lr_factor * self.config.run.rollback_lr
        self.state.optimizer.zero_grad(set_to_none=True)
        self.load_newest()
        self.state.skipped, self.state.bad_steps, self.state.lr_factor = skipped, bad, factor
        self.say(f"update {broken} was not finite: back at step {self.state.step}, it will be left out")

    def finish(self) -> dict[str, Any]:
        """Write the report; returns the summary."""
        summary: dict[str, Any] = {
            "folder": str(self.folder.path),
            "step": self.state.step,
            "epochs": self.epoch,
            **summary_of(self.state.best, score_name(self.config)),
            "seconds": round(time.perf_counter() - self.started, 2),
        }
        if self.world.main:
            text = json_text(summary)
            self.unless_full(lambda: storage.replace_text(self.folder.path / "summary.json", text), "summary.json")
            self.unless_full(self.folder.write_summary, "summary.csv")
            there = self.folder.path
            self.unharmed(lambda: page.write_report(reading.open_run(there), there / "report.html"), "report")
            self.loggers.end(summary)
        for callback in self.callbacks:
            callback(self, {"kind": "end", **summary})
        self.world.barrier()
        if self.world.main:
            check_written(self.state.best, self.folder)
        return summary
