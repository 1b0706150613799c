"""The kit in a process of its own, so that a plugin that exits, crashes or prints cannot fool it.

The child reports over a pipe that nothing else knows: a line as each check begins, one with its result, and a last
one. Where it ends without that, the check that ran has failed, and another child goes on behind it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from imgzoo.errors import PluginError
from imgzoo.specs import NOTHING

from .kit import USUAL, iter_checks, judged, run
from .outcome import CheckResult

CODE = "import sys; from imgzoo.testing.process import child; child(*sys.argv[1:])"


def check_in_process(
    plugin: str,
    *,
    tiers: Sequence[str] = USUAL,
    sample: int | None = None,
    examples: Mapping[str, Any] = NOTHING,
    callback: Callable[[CheckResult], None] | None = None,
) -> list[CheckResult]:
    """`check_plugin` in child processes; their prints go to stderr. Raises `PluginError` where none can be begun."""
    results: list[CheckResult] = []
    asked = {"plugin": plugin, "tiers": list(tiers), "sample": sample, "examples": dict(examples)}
    done = False
    while not done:
        begun, done = None, False
        before = len(results)
        for line in _lines({**asked, "start": len(results)}):
            if "end" in line:
                done = bool(line["end"])
            elif "status" in line:
                results.append(CheckResult(**line))
                begun = None
            else:
                begun = line
            if "status" in line and callback is not None:
                callback(results[-1])
        if not done and begun is not None:
            results.append(judged(begun["name"], begun["subject"], Ended(begun.get("how", "the process ended in it"))))
            if callback is not None:
                callback(results[-1])
        elif not done and len(results) == before:
            raise PluginError(f"the checks of plugin '{plugin}' cannot be begun: their process ends at once")
    return results


class Ended(Exception):
    """The process of a check ended before the check did."""


def _lines(asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What one child reports, line by line; the check in which it ended is told how."""
    reads, writes = os.pipe()
    command = [sys.executable, "-P", "-c", CODE, str(writes), json.dumps(asked)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, pass_fds=[writes])
    os.close(writes)
    begun: dict[str, Any] | None = None
    ended = False
    try:
        with os.fdopen(reads, encoding="utf-8") as pipe:
            for text in pipe:
                line = json.loads(text)
                begun = line if "status" not in line and "end" not in line else None
                ended = "end" in line
                yield line
    finally:
        code = process.wait()
    if begun is not None and not ended:
        yield {**begun, "how": f"the process ended in it, {_how(code)}"}


def _how(code: int) -> str:
    return f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def child(descriptor: str, asked: str) -> None:
    """Run the checks from the `start`-th on, and report over the pipe."""
    options = json.loads(asked)
    start = options.pop("start")
    with os.fdopen(os.dup(int(descriptor)), "w", encoding="utf-8") as pipe:
        os.close(int(descriptor))

        def report(line: Mapping[str, Any]) -> None:
            pipe.write(json.dumps(line) + "\n")
            pipe.flush()

        for number, (subject, check) in enumerate(iter_checks(options.pop("plugin"), **options)):
            if number >= start:
                report({"name": check.name, "subject": str(subject)})
                report(vars(run(subject, check, NOTHING)))
        report({"end": True})
