"""Small C functions, as a wheel brought them, or compiled on first use by the system's compiler and kept in the cache.

What they do must also be done without them: there may be no compiler, and `IMGZOO_KERNELS=0` asks for none. They are
called through ctypes, which lets other threads run. No torch here.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

LEVEL_3 = frozenset({"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"})
"""Flags of a processor that runs what a wheel has for x86-64 of level 3."""
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-fPIC", "-shared")


def cache_dir() -> Path:
    """Where downloads, indices and compiled code are kept: `IMGZOO_CACHE`, or `imgzoo` in the user's cache folder.

    A process without a home has one of its own in the folder for temporary files; never the working directory.
    """
    if chosen := os.environ.get("IMGZOO_CACHE"):
        return Path(os.path.expanduser(chosen))
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "imgzoo" if os.path.isabs(base) else _homeless()


@functools.cache
def _homeless() -> Path:
    """This user's folder among the temporary files; where somebody else has taken its name, one of this process."""
    folder = Path(tempfile.gettempdir()) / f"imgzoo-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    return folder if _private(folder) else Path(tempfile.mkdtemp(prefix="imgzoo-"))


def code(beside: str, name: str) -> str:
    """The text of a C file that lies beside a module, given as its `__file__`."""
    return Path(beside).with_name(name).read_text(encoding="utf-8")


@functools.cache
def library(source: str, shipped: Path | None = None) -> Any:
    """C code as a loaded library: from the folder `shipped` of a wheel, the cache, or the compiler; else None.

    Of the cache nothing is loaded from a folder that another user owns, can write or can replace, nor from one that
    depends on the working directory, and nowhere a file that is not as it was compiled.
    """
    if os.environ.get("IMGZOO_KERNELS") == "0" or ctypes.sizeof(ctypes.c_long) != 8:
        return None
    return (shipped and _shipped(source, shipped)) or _compiled(source)


def _shipped(source: str, folder: Path) -> Any:
    """What the wheel brought for this code and processor, or None."""
    level = "v3" if set(_processor().split()) >= LEVEL_3 else "plain"
    path = folder / f"{hashlib.sha256(source.encode()).hexdigest()[:24]}-{level}.so"
    try:
        return ctypes.CDLL(str(path)) if _as_compiled(path, path.with_suffix(".sha256")) else None
    except OSError:
        return None


def _compiled(source: str) -> Any:
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    digest = hashlib.sha256("\0".join([source, *FLAGS, compiler, _processor()]).encode()).hexdigest()[:24]
    try:
        folder = cache_dir() / "kernels"
        if not folder.is_absolute():
            return None
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path, proof = folder / f"{digest}.so", folder / f"{digest}.sha256"
        if not _private(folder):
            return None
        if not _as_compiled(path, proof):
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                text, built, sum_ = (Path(scratch) / name for name in ("kernel.c", "kernel.so", "kernel.sha256"))
                text.write_text(source, encoding="utf-8")
                command = [compiler, *FLAGS, str(text), "-o", str(built), "-lm"]
                subprocess.run(command, check=True, capture_output=True, timeout=60)
                sum_.write_text(_sum(built), encoding="utf-8")
                os.replace(built, path)
                os.replace(sum_, proof)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None


def _private(folder: Path) -> bool:
    """Whether a folder is this user's, and no link, and nobody else can write to it or put another in its place."""
    found, me = folder.lstat(), os.getuid()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != me or found.st_mode & 0o022:
        return False
    above = [each.stat() for each in folder.resolve().parents]
    return all(each.st_uid in (0, me) and (not each.st_mode & 0o002 or each.st_mode & stat.S_ISVTX) for each in above)


def _as_compiled(path: Path, proof: Path) -> bool:
    try:
        return proof.read_text(encoding="utf-8") == _sum(path)
    except (OSError, UnicodeDecodeError):
        return False


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _processor() -> str:
    """What the compiled code depends on beside its source."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return str(os.uname()) if hasattr(os, "uname") else ""
    return next((line for line in text.splitlines() if line.startswith("flags")), "")
