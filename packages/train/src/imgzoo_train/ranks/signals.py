"""SIGTERM, SIGINT and SIGUSR1 end a run at the next safe point, the same on every rank; a stall ends it loudly."""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from imgzoo.errors import ImgzooError

from .world import World

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Interrupted(ImgzooError):
    """A signal asked the run to end; what it had reached was saved."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Signals:
    """Catches the signals inside a `with` block; `poll` raises `Interrupted` once any rank got one."""

    def __init__(self, world: World, stall: float = 0.0) -> None:
        self.world, self.stall, self.received = world, stall, 0
        self.owner = os.getpid()
        self._vote: Callable[[], int] = lambda: 0
        self._previous: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.owner:  # a loader's worker inherited this handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = max(self.received, number)

    def __enter__(self) -> Signals:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        self.alive()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self.stall:
            faulthandler.cancel_dump_traceback_later()

    def alive(self) -> None:
        """Start the stall clock again: without another call in time every thread's stack is printed and we exit 1."""
        if self.stall:
            faulthandler.dump_traceback_later(self.stall, exit=True, file=2)

    def poll(self, *_: object) -> None:
        """Every rank calls this at the same points. Of several ranks each learns what all had got one call before, so
        that none waits for another, nor for its device."""
        self.alive()
        vote = self.world.vote(self.received)
        number = self._vote() if self.world.size > 1 else vote()
        self._vote = vote
        if number:
            raise Interrupted(number)
