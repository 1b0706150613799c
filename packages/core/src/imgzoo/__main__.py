"""`python -m imgzoo` is the `imgzoo` command: no more than it takes plugins from the working directory."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the working directory, which python puts there

from imgzoo.cli import main

main()
