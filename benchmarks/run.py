"""Everything in this folder beside the peer: `python -m nox -s bench [-- --quick] [-- --ages] [-- NAME ...]`.

Writes benchmarks/results.json, and from it the tables of README.md and docs/benchmarks.md. A run of some benchmarks
replaces their rows only; benchmarks/measured.json says when, where and on which code each of them ran.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
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
MEASURED = HERE / "measured.json"
NETWORKS = ("core", "layers", "archs-cnn", "archs-transformer", "archs-efficientnet")
BENCHMARKS = {
    "start": (*NETWORKS, "data", "train"),
    "install": (*NETWORKS, "optim", "data", "train"),
    "create": NETWORKS,
    "forward": NETWORKS,
    "families": (*NETWORKS, "train"),
    "deploy": (*NETWORKS, "train"),
    "optim": ("optim",),
    "loader": ("data",),
    "train": (*NETWORKS, "optim", "data", "train"),
    "growth": ("data", "train"),
    "gpu": (*NETWORKS, "optim", "data", "train"),
}
"""Each benchmark and the packages whose code it measures."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds; nothing is written")
    parser.add_argument("--ages", action="store_true", help="measure nothing: say which rows are older than their code")
    args = parser.parse_args()
    if args.ages:
        print("\n".join(ages()))
        return 0
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
        measured = json.loads(MEASURED.read_text()) | {name: circumstances(name) for name in found}
        MEASURED.write_text(json.dumps({name: measured[name] for name in BENCHMARKS}, indent=1) + "\n")
        subprocess.run([sys.executable, str(ROOT / "tools" / "readme.py")], check=True)
    print("\n".join(ages()))
    return int(bool(failed))


def code(name: str, top: Path = ROOT) -> str:
    """A digest of the code that a benchmark measures."""
    digest = hashlib.sha256()
    for package in BENCHMARKS[name]:
        for path in sorted((top / "packages" / package / "src").rglob("*")):
            if path.suffix in {".py", ".c", ".cu", ".json"}:
                digest.update(f"{path.relative_to(top).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def ages() -> list[str]:
    """A line for each benchmark: when and where it ran, and whether its code has changed since."""
    lines = []
    for name, ran in json.loads(MEASURED.read_text()).items():
        now = "its code is the same" if ran["code"] == code(name) else "OLDER than its code"
        lines.append(f"{name}: {ran['date']}, {ran['commit']}, {ran['cores']} cores of {ran['cpu']}; {now}")
    return lines


def circumstances(name: str) -> dict[str, object]:
    """When, on what and on which code a benchmark ran."""
    commit = git("describe", "--always", "--exclude", "*")
    if git("status", "--porcelain", "packages"):
        commit += "-dirty"
    ran = {"date": datetime.date.today().isoformat(), "commit": commit or "no commit", "code": code(name), **machine()}
    if name == "gpu":
        import torch

        if torch.cuda.is_available():
            ran["cpu"] = f"{ran['cpu']}, {torch.cuda.get_device_name()}"
    return ran


def git(*words: str) -> str:
    return subprocess.run(("git", "-C", str(ROOT), *words), capture_output=True, text=True).stdout.strip()


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}


if __name__ == "__main__":
    raise SystemExit(main())
