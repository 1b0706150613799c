"""What a run shows of its progress: a live bar on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

from imgzoo.text import duration, escaped

SECONDS = 30.0
"""Where there is no terminal, no two lines about progress are closer, nor closer than a tenth of an epoch."""


class Bar:
    """Steps done of all, with loss, score, speed and the time left: one live line, or a few where there is no terminal.

    `updates` are the steps of an epoch, `score` is the name of what decides; `clock` tells seconds.
    """

    def __init__(
        self,
        total: int,
        done: int,
        updates: int = 1,
        score: str = "",
        *,
        quiet: bool = False,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = Console(stderr=True, quiet=quiet or not shown)
        self.live = self.console.is_terminal
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            disable=not self.live,
            redirect_stdout=False,
        )
        self.task = self.progress.add_task("train", total=total, completed=done, figures="")
        self.total, self.updates, self.score, self.clock = total, updates, score, clock
        self.first = self.said = (done, clock())
        self.loss = self.scores = self.speed = ""
        self.left_out = 0

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def step(self, done: int) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=done)

    def row(self, row: Mapping[str, Any]) -> None:
        """Show what a row of training or of an evaluation tells."""
        if row["kind"] == "eval":
            named = [name for name in row if name == self.score or name.startswith(f"{self.score}_")]
            self.scores = "  ".join(f"{name} {row[name]:.2f}" for name in named)
        else:
            self.loss = f"loss {row['loss']:.4f}" if "loss" in row else self.loss
            self.speed = f"{row['images_per_second']:,.0f} img/s  waiting for data {row['data_wait']:.0%}"
            self.left_out += row.get("left_out", 0)
        out = f"{self.left_out} updates not finite, left out" if self.left_out else ""
        text = "  ".join(filter(None, (self.loss, self.scores, out, self.speed)))
        if self.live:
            self.progress.update(self.task, figures=text)
        elif self.due(row["step"]):
            self.say(f"epoch {row['epoch']}  step {row['step']}  {text}{self.time_left(row['step'])}")

    def due(self, step: int) -> bool:
        """Whether a line may be written; if so, the next has to wait."""
        before, then = self.said
        if step - before < self.updates / 10 or self.clock() - then < SECONDS:
            return False
        self.said = (step, self.clock())
        return True

    def time_left(self, step: int) -> str:
        """What the steps to come take at the pace so far."""
        done, then = self.first
        seconds = (self.clock() - then) / max(1, step - done) * (self.total - step)
        return f"  {duration(seconds)} left" if step > done and self.total > step else ""

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.progress.console.print(escape(escaped(text)), highlight=False, soft_wrap=True)


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """A spinner on the terminal while something without a length is done; what it gives takes the name of a step."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: None
        return
    with console.status(escape(escaped(what))) as status:
        yield lambda step: status.update(escape(escaped(f"{what}: {step}")))


class Watched:
    """An iterable with a bar on the terminal while one loops over it; everything else is the iterable's own."""

    def __init__(self, items: Any, total: int, what: str, least: int = 8) -> None:
        self.items, self.total, self.what, self.least = items, total, what, least

    def __iter__(self) -> Iterator[Any]:
        console = Console(stderr=True)
        if self.total < self.least or not console.is_terminal:
            return iter(self.items)
        return iter(track(self.items, escaped(self.what), total=self.total, console=console))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.items, name)
