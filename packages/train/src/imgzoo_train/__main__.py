"""`python -m imgzoo_train` is the `imgzoo` program: what `imgzoo launch` starts on every rank.

Ranks mostly fail alike, and the launcher ends the others when one has failed: rank 0 says why at once, another rank
only if it is still there a little later, and last of all one that only lost another.
"""

import os
import sys
import time
from typing import TextIO

if not sys.flags.safe_path:
    del sys.path[0]  # the working directory, which python puts there: no plugins are taken from it

from imgzoo.cli import main

PATIENCE = 5.0
ECHO = "imgzoo: another rank has ended"
"""What a rank says when another died: `distributed.LOST`, which the other explains."""


class Held:
    """A stream that keeps the program's own last words back, those that begin with `mark`."""

    def __init__(self, stream: TextIO, mark: str) -> None:
        self.stream, self.mark, self.words = stream, mark, ""

    def write(self, text: str) -> int:
        if self.words or text.startswith(self.mark):
            self.words += text
            return len(text)
        return self.stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


first = os.environ.get("RANK", "0") == "0"
held = Held(sys.stderr, ECHO if first else "imgzoo: ")
sys.stderr = held  # type: ignore[assignment]
try:
    main()
except SystemExit as error:
    stopped = isinstance(error.code, int) and error.code > 128  # by a signal that every rank took
    if held.words and not stopped:
        time.sleep(PATIENCE * (2 if held.words.startswith(ECHO) else 1))  # what it echoes comes before it
        held.stream.write(held.words)
    raise
