"""How far our numbers are from the peer's: `.nox/parity/bin/python tools/differences.py [FAMILY ...]`.

Runs the comparisons of logits and levels of every structure in tests/parity and writes each family's worst difference,
relative to the largest value compared, into docs/differences.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/parity"))
from structures import COMPARED  # noqa: E402

FILE = ROOT / "docs/differences.json"


def measure(family: str) -> float:
    """The worst difference over a family's structures, sizes and levels."""
    names = " or ".join(f"test_logits_and_levels[{name}]" for name in COMPARED[family])
    with tempfile.NamedTemporaryFile("r") as record:
        command = [sys.executable, "-m", "pytest", "-q", "tests/parity/test_models.py", "-k", names]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "IMGZOO_DIFFERENCES": record.name}, check=True)
        return max(float(line.rsplit("\t", 1)[1]) for line in record)


def main(families: list[str]) -> None:
    found = json.loads(FILE.read_text()) if FILE.is_file() else {}
    for family in families or COMPARED:
        found[family] = float(f"{measure(family):.1e}")
        FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
