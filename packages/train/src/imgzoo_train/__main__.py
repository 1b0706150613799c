"""`python -m imgzoo_train` is the `imgzoo` program: what `imgzoo launch` starts on every rank.

Ranks mostly fail alike, and the launcher ends the others when one has failed: rank 0 says why at once, another rank
only if it is still there a little later.
"""

import os
import sys
import time
from typing import TextIO

from imgzoo.cli import main

PATIENCE = 5.0


class Held:
    """A stream that keeps the program's own last words back."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.words = stream, ""

    def write(self, text: str) -> int:
        if self.words or text.startswith("imgzoo: "):
            self.words += text
            return len(text)
        return self.stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


if os.environ.get("RANK", "0") == "0":
    main()
held = Held(sys.stderr)
sys.stderr = held  # type: ignore[assignment]
try:
    main()
except SystemExit as error:
    stopped = isinstance(error.code, int) and error.code > 128  # by a signal that every rank took
    if held.words and not stopped:
        time.sleep(PATIENCE)
        held.stream.write(held.words)
    raise
