"""CPU time until a user sees something: listing all models, importing the library.

    .nox/imgzoo/bin/python benchmarks/start.py [--quick] [--json out.json]

Each figure is the CPU time of a child process (user and system), so that what else runs counts little.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
from collections.abc import Iterator

from rows import PEER_PYTHON, Row, alone, main, paired

LIST = ("-m", "imgzoo", "list")
PEER_LIST = ("-W", "ignore", "-c", "import timm; print(len(timm.list_models()))")
BOUND = "starting Python, reading the catalogs"


def cpu_seconds(*arguments: str) -> float:
    """CPU time of one child process of the environment that holds both libraries, its bytecode cached as pip does."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(PEER_PYTHON), *arguments], stdout=subprocess.DEVNULL, check=True, env=environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def rows(args: argparse.Namespace) -> Iterator[Row]:
    pairs = [(cpu_seconds(*LIST), cpu_seconds(*PEER_LIST)) for _ in range(2 if args.quick else 5)]
    yield alone("start", "imgzoo list, all names, CPU time", "s", min(ours for ours, _ in pairs), 0.2, BOUND, True)
    yield paired("start", "list all models from a shell, CPU time", "s", pairs, 15, BOUND)
    commands = ("-c", "import imgzoo"), ("-W", "ignore", "-c", "import timm")
    pairs = [(cpu_seconds(*commands[0]), cpu_seconds(*commands[1])) for _ in range(2 if args.quick else 5)]
    yield paired("start", "import, CPU time", "s", pairs, 15, "starting Python")


if __name__ == "__main__":
    main(__doc__, rows)
