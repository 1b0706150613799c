"""A site folder with real `.dist-info` folders in it, to install plugins of every kind into, sound and broken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from broken_plugins import HEADER

from imgzoo.discovery import manager
from imgzoo.discovery.distributions import Folder, installed
from imgzoo.discovery.manager import Manager


class Site:
    """A folder on the path. `add` installs a distribution; a value of `files` is the text of a module."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(
        self,
        dist: str,
        plugin: str = "",
        source: str | None = "",
        *,
        version: str = "1.0",
        entry_points: str | None = None,
        metadata: str | None = None,
        header: str = HEADER,
        files: dict[str, str] | None = None,
    ) -> str:
        """Install `dist` with a plugin whose module is `header + source`; returns its import package."""
        package = dist.replace("-", "_").replace("imgzoo_", "fake_")  # the real imgzoo_optim may be imported already
        info = self.path / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        if entry_points is None:
            entry_points = f"[imgzoo.plugins]\n{plugin or dist} = {package}._plugin\n"
        (info / "entry_points.txt").write_text(entry_points)
        metadata = f"Metadata-Version: 2.4\nName: {dist}\nVersion: {version}\n" if metadata is None else metadata
        if metadata:
            (info / "METADATA").write_text(metadata)
        if source is not None:
            self.write(f"{package}/__init__.py", "")
            self.write(f"{package}/_plugin.py", header + dedent(source))
        for name, text in (files or {}).items():
            self.write(name, text)
        return package

    def write(self, name: str, text: str) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(dedent(text))

    def manager(self, **environ: str) -> Manager:
        """A manager that knows this folder alone."""
        folders = sorted(self.path.glob("*.dist-info"))
        return Manager([Folder(str(folder)) for folder in folders], environ=environ)

    def manager_beside_others(self, **environ: str) -> Manager:
        """A manager that knows this folder, which is on the path, and what is installed."""
        return Manager(installed(), environ=environ)

    def run(self, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `imgzoo` in a process with this folder first on the path."""
        command = [sys.executable, "-m", "imgzoo", *args]
        return subprocess.run(command, env=self.environ(**environ), capture_output=True, text=True)

    def environ(self, **more: str) -> dict[str, str]:
        """The environment of a process with this folder first on the path."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("IMGZOO_")}
        path = os.pathsep.join(filter(None, (str(self.path), env.get("PYTHONPATH"))))
        return {**env, "PYTHONPATH": path, **more}


def _site(folder: Path) -> Iterator[Site]:
    folder.mkdir()
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield Site(folder)
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None) or ""
        if origin.startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An empty site folder on `sys.path`; what tests import from it is forgotten afterwards."""
    yield from _site(tmp_path / "site")


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site folder that all tests of a module share."""
    yield from _site(tmp_path_factory.mktemp("shared") / "site")


@pytest.fixture
def use_plugins() -> Iterator[object]:
    """Put a manager in the place of the process's: `use_plugins(site.manager())`."""
    before = manager._manager
    yield manager.set_manager
    manager.set_manager(before)
