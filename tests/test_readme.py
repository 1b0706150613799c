"""The README is true: its generated parts are current, its Python runs, its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
HAND = re.sub(r"<!-- generated: ([a-z-]+) -->\n.*?<!-- end -->", "", TEXT, flags=re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", HAND, flags=re.DOTALL)
COMMANDS = [line.strip().partition("#")[0].strip() for line in HAND.splitlines() if line.startswith("    imgzoo ")]


def test_generated_parts_are_current():
    done = subprocess.run([sys.executable, ROOT / "tools/readme.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_runs(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_spelled_right(command):
    """Listing commands run; the others must know every option they are shown with."""
    words = command.replace("'", "").split()
    imgzoo = str(Path(sys.executable).with_name("imgzoo"))
    if words[1] in ("list", "info"):
        done = subprocess.run([imgzoo, *words[1:]], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.strip(), done.stderr
    else:
        text = subprocess.run([imgzoo, words[1], "--help"], capture_output=True, text=True).stdout
        assert all(word in text for word in words if word.startswith("--"))
