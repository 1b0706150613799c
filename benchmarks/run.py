"""Run every benchmark of this folder beside the peer, one after another: `python -m nox -s bench [-- NAME ...]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = (("create", ()), ("forward", ()), ("forward", ("--train",)), ("optim", ()), ("loader", ()), ("train", ()))


def main(names: list[str]) -> int:
    failed = []
    for name, flags in BENCHMARKS:
        if names and name not in names:
            continue
        print(f"\n== {name} {' '.join(flags)}", flush=True)
        if subprocess.run([sys.executable, HERE / f"{name}.py", *flags]).returncode:
            failed.append(name)
    if failed:
        print(f"these did not finish: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
