"""Everything in this folder beside the peer: `python -m nox -s bench [-- --quick] [-- NAME ...]`.

Writes benchmarks/results.json, and from it the tables of README.md and docs/benchmarks.md. A run of some benchmarks
replaces their rows only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from rows import ROOT, Row, read, save

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
BENCHMARKS = ("start", "install", "create", "forward", "deploy", "optim", "loader", "train", "growth", "gpu")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds; nothing is written")
    args = parser.parse_args()
    found: dict[str, list[Row]] = {}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names or [name for name in BENCHMARKS if name != "gpu"]:  # `nox -s gpu` has that
            print(f"\n== {name}", flush=True)
            file = Path(folder) / f"{name}.json"
            command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(file)]
            if subprocess.run([*command, *(["--quick"] if args.quick else [])]).returncode:
                failed.append(name)
            else:
                found[name] = read(file)
    if failed:
        print(f"these did not finish: {', '.join(failed)}")
    if not args.quick:
        before = read(RESULTS) if RESULTS.is_file() else []
        parts = {name: [row for row in before if row.part == name] for name in BENCHMARKS} | found
        save((row for name in BENCHMARKS for row in parts[name]), RESULTS)
        (HERE / "machine.json").write_text(json.dumps(machine(), indent=1) + "\n")
        subprocess.run([sys.executable, str(ROOT / "tools" / "readme.py")], check=True)
    return int(bool(failed))


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}


if __name__ == "__main__":
    raise SystemExit(main())
