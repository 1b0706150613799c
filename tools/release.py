"""Build the one distribution that a tag names: `python tools/release.py imgzoo-data-v0.2.0 dist`.

The tag has to say the version of its `pyproject.toml`, and its changelog has to tell of that version.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

PACKAGES = Path(__file__).parents[1] / "packages"


def package_of(tag: str) -> Path:
    """The folder of the distribution that a tag releases; a tag that does not fit ends the program."""
    match = re.fullmatch(r"(imgzoo(?:-[a-z]+)*)-v(\d+\.\d+\.\d+)", tag)
    if match is None:
        raise SystemExit(f"'{tag}' is no tag of a release: imgzoo-data-v0.2.0 is one")
    name, version = match.groups()
    for file in PACKAGES.glob("*/pyproject.toml"):
        project = tomllib.loads(file.read_text())["project"]
        if project["name"] == name:
            if project["version"] != version:
                raise SystemExit(f"{tag} is not the version in {file.parent.name}/pyproject.toml, {project['version']}")
            if not re.search(rf"^## {re.escape(version)}$", file.with_name("CHANGELOG.md").read_text(), re.MULTILINE):
                raise SystemExit(f"the changelog of {name} says nothing of {version}")
            return file.parent
    raise SystemExit(f"there is no distribution {name}")


def main(tag: str, out: str) -> None:
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, package_of(tag)], check=True)
    for wheel in Path(out).glob("*-linux_*.whl"):  # an index takes no wheel for any Linux: say which ones it fits
        subprocess.run([sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", out, wheel], check=True)
        wheel.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
