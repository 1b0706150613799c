"""Freed memory: kept for the next batch, and given back where a block is larger than any batch."""

import platform
import subprocess
import sys

import pytest

from imgzoo import memory

COUNT = """
import resource, sys
from imgzoo.memory import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
bytearray(64 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    bytearray(64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    return int(subprocess.run([sys.executable, "-c", COUNT, word], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back this early")
def test_blocks_of_a_batchs_size_are_faulted_in_once():
    assert faults("keep") < 1000 < faults("give back")


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_memory() is False


def test_an_older_glibc_takes_its_own_highest_threshold(monkeypatch):
    taken = {}

    class Older:
        def mallopt(self, option, value):
            if option == memory.M_MMAP_THRESHOLD and value > memory.OLDER_GLIBC:
                return 0
            taken[option] = value
            return 1

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Older())
    assert memory.keep_memory() is True
    assert taken == {memory.M_MMAP_THRESHOLD: 32 << 20, memory.M_TRIM_THRESHOLD: 2**31 - 1}


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: cannot allocate")])
def test_too_little_memory_is_known_and_said(error, monkeypatch, capsys):
    from imgzoo.cli import app

    assert memory.is_short(error) and not memory.is_short(RuntimeError("memory of an elephant"))
    monkeypatch.setattr(app.cli, "main", lambda *arguments, **options: (_ for _ in ()).throw(error))
    with pytest.raises(SystemExit) as ended:
        app.run([])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("imgzoo: there is not enough memory for it (")
