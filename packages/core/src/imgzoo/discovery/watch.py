"""Plugins that take long while they are imported or asked: named after a second, and ended where a limit is set."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .find import Plugin

PATIENCE = 1.0
"""Seconds until a plugin is named."""
REST = 0.1


class TookTooLong(BaseException):
    """A plugin did not end within `IMGZOO_PLUGIN_TIMEOUT` seconds."""


class Watch:
    """Names on stderr the plugin that holds everybody up; ends it after `limit` seconds, in the main thread.

    One thread looks on while plugins work, and goes when they rest.
    """

    def __init__(self, limit: float = 0.0) -> None:
        self.limit = limit
        self._at_work: tuple[Plugin, float] | None = None
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, plugin: Plugin) -> Iterator[None]:
        before, self._at_work = self._at_work, (plugin, time.monotonic())
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look_on, name="imgzoo-watch", daemon=True)
            self._thread.start()
        try:
            with self._limited(plugin):
                yield
        finally:
            self._at_work = before

    def _look_on(self) -> None:
        named, idle = None, 0.0
        while idle < PATIENCE:
            time.sleep(REST)
            at_work = self._at_work
            idle = idle + REST if at_work is None else 0.0
            if at_work is None or at_work is named or time.monotonic() - at_work[1] < PATIENCE:
                continue
            named = at_work
            print(f"imgzoo: still waiting for plugin {named[0].title} ({way_out(named[0])})", file=sys.stderr)

    @contextmanager
    def _limited(self, plugin: Plugin) -> Iterator[None]:
        if not self.limit or threading.current_thread() is not threading.main_thread():
            yield
            return

        def end(*_: Any) -> None:
            raise TookTooLong(f"it took longer than IMGZOO_PLUGIN_TIMEOUT={self.limit:g} seconds")

        former = signal.signal(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, self.limit)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)


def way_out(plugin: Plugin) -> str:
    return f"IMGZOO_DISABLE_PLUGINS={plugin.short_name} leaves it out"
