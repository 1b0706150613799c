"""Small C functions, compiled on first use with the system's compiler and kept in the cache folder.

What they do must also be done without them: there may be no compiler, and `IMGZOO_KERNELS=0` asks for none. They are
called through ctypes, which lets other threads run. No torch here.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")


def cache_dir() -> Path:
    """Where downloads, indices and compiled code are kept: `IMGZOO_CACHE`, or `imgzoo` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.environ.get("IMGZOO_CACHE") or os.path.join(base, "imgzoo"))


@functools.cache
def library(source: str) -> Any:
    """C code as a loaded library, from the cache or the compiler; None where there is no compiler or it fails."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if os.environ.get("IMGZOO_KERNELS") == "0" or compiler is None or ctypes.sizeof(ctypes.c_long) != 8:
        return None
    digest = hashlib.sha256("\0".join([source, *FLAGS, compiler, _processor()]).encode()).hexdigest()[:24]
    try:
        folder = cache_dir() / "kernels"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{digest}.so"
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                code, built = Path(scratch) / "kernel.c", Path(scratch) / "kernel.so"
                code.write_text(source, encoding="utf-8")
                command = [compiler, *FLAGS, str(code), "-o", str(built), "-lm"]
                subprocess.run(command, check=True, capture_output=True, timeout=60)
                os.replace(built, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    """What the compiled code depends on beside its source."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return str(os.uname()) if hasattr(os, "uname") else ""
    return next((line for line in text.splitlines() if line.startswith("flags")), "")
