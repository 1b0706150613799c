"""What bounds the long sessions: `--slice N`, `--touched`, `--minutes M`. Everything left out is counted or named."""

import hashlib
import subprocess
import time
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
HOURS = 12
"""What was committed within so many hours before HEAD counts as the change."""
START = time.monotonic()


def pytest_addoption(parser):
    group = parser.getgroup("imgzoo")
    group.addoption("--slice", type=int, default=1, help="run one Nth of the tests, chosen by the commit")
    group.addoption("--touched", action="store_true", help="also run every test of the families the change touches")
    group.addoption("--minutes", type=float, default=0.0, help="skip what has not begun after so many minutes")


@cache
def git(*words: str) -> str:
    return subprocess.run(("git", *words), cwd=ROOT, capture_output=True, text=True).stdout.strip()


def touched_families() -> set[str]:
    """Names of the family files, networks or catalogs, that differ from half a day before HEAD."""
    now = int(git("log", "-1", "--format=%ct") or 0)
    base = git("rev-list", "-1", f"--before={now - HOURS * 3600}", "HEAD")
    changed = git("diff", "--name-only", base, "HEAD").splitlines() if base else []
    return {Path(name).stem for name in changed if name.startswith("packages/archs-") and "/src/" in name}


def pytest_collection_modifyitems(config, items):
    count, families = config.getoption("--slice"), set()
    if count == 1:
        return
    commit = git("rev-parse", "HEAD")
    if config.getoption("--touched"):
        families = touched_families()

    def chosen(item) -> bool:
        family = item.callspec.id.partition("-")[0] if hasattr(item, "callspec") else ""
        if family in families and item.path.name == "test_conformance.py":
            return True
        digest = hashlib.sha256(f"{commit}:{item.nodeid}".encode()).digest()
        return int.from_bytes(digest[:4], "big") % count == 0

    def order(item) -> bytes:
        return hashlib.sha256(f"{item.nodeid}:{commit}".encode()).digest()

    kept = [item for item in items if chosen(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = sorted(kept, key=order) if config.getoption("--minutes") else kept


def pytest_runtest_setup(item):
    minutes = item.config.getoption("--minutes")
    if minutes and time.monotonic() - START > 60 * minutes:
        pytest.skip(f"not begun within {minutes:g} minutes; the nightly session runs it")
