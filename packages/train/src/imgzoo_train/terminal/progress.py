"""The progress bar of a run; silent when the output is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

from imgzoo.text import escaped


class Bar:
    """Steps done of all, with the figures of the last log row. One line a log row where there is no terminal."""

    def __init__(self, total: int, done: int, *, quiet: bool = False, shown: bool = True) -> None:
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

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def step(self, done: int) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=done)

    def row(self, row: Mapping[str, Any]) -> None:
        """Show a log row."""
        loss = f"loss {row['loss']:.4f}  " if "loss" in row else ""
        out = f"{row['left_out']} updates not finite, left out  " if "left_out" in row else ""
        speed = f"{row['images_per_second']:.0f} img/s  waiting for data {row['data_wait']:.0%}"
        text = f"{loss}{out}lr {row['lr']:.2e}  {speed}"
        if self.live:
            self.progress.update(self.task, figures=text)
        else:
            self.say(f"epoch {row['epoch']}  step {row['step']}  {text}")

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
