"""Compile the C code of this package into its wheel where a compiler is at hand; without one the wheel is pure Python.

For x86-64 every library is there twice, plain and for processors of level 3 (AVX2, FMA); `imgzoo.native` chooses.
"""

import hashlib
import os
import platform
import runpy
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ("-w", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-fPIC", "-shared")
LEVELS = {"plain": (), "v3": ("-march=x86-64-v3",)} if platform.machine() == "x86_64" else {"plain": ()}


class CompiledCode(BuildHookInterface):
    def initialize(self, version, build_data):
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if version == "editable" or compiler is None or os.environ.get("IMGZOO_KERNELS") == "0":
            return
        (package,) = Path(self.root, "src").iterdir()
        self.folder = Path(tempfile.mkdtemp())
        for source in runpy.run_path(str(package / "c_sources.py"))["sources"]():
            text = self.folder / "kernel.c"
            text.write_text(source, encoding="utf-8")
            for level, flags in LEVELS.items():
                built = self.folder / f"{hashlib.sha256(source.encode()).hexdigest()[:24]}-{level}.so"
                subprocess.run([compiler, *FLAGS, *flags, str(text), "-o", str(built), "-lm"], check=True)
                proof = built.with_suffix(".sha256")
                proof.write_text(hashlib.sha256(built.read_bytes()).hexdigest(), encoding="utf-8")
                for file in (built, proof):
                    build_data["force_include"][str(file)] = f"{package.name}/compiled/{file.name}"
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")

    def finalize(self, version, build_data, artifact_path):
        shutil.rmtree(getattr(self, "folder", ""), ignore_errors=True)
