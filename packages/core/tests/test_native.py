"""Compiled functions: kept in the cache, and done without where there is no compiler."""

import hashlib
import os
import shutil

import pytest

from imgzoo import native

SOURCE = "int answer(void) { return 42; }"
needs_compiler = pytest.mark.skipif(native.library(SOURCE) is None, reason="needs a C compiler")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGZOO_CACHE", str(tmp_path))
    native.library.cache_clear()
    yield tmp_path / "kernels"
    native.library.cache_clear()


@needs_compiler
def test_a_library_is_compiled_once(cache, monkeypatch):
    assert native.library(SOURCE).answer() == 42
    built = sorted(cache.iterdir())
    native.library.cache_clear()
    monkeypatch.setattr(native.subprocess, "run", None)
    assert native.library(SOURCE).answer() == 42
    assert sorted(cache.iterdir()) == built and len(built) == 2


@needs_compiler
def test_code_that_does_not_compile_is_done_without(cache):
    assert native.library("not C") is None
    assert not [*cache.iterdir()]


@needs_compiler
@pytest.mark.parametrize("damage", [lambda data: b"not a library", lambda data: data[:-1000], lambda data: b""])
def test_a_damaged_library_is_compiled_again(cache, damage):
    assert native.library(SOURCE) is not None
    (built,) = cache.glob("*.so")
    whole = built.read_bytes()
    built.unlink()  # the process has the old one mapped
    built.write_bytes(damage(whole))
    native.library.cache_clear()
    assert native.library(SOURCE).answer() == 42 and built.read_bytes()[:100] == whole[:100]


@needs_compiler
def test_a_folder_that_others_can_write_is_not_loaded_from(cache, tmp_path):
    assert native.library(SOURCE) is not None
    cache.chmod(0o777)
    native.library.cache_clear()
    assert native.library(SOURCE) is None
    cache.chmod(0o700)
    cache.rename(tmp_path / "elsewhere")
    cache.symlink_to(tmp_path / "elsewhere")
    native.library.cache_clear()
    assert native.library(SOURCE) is None


@needs_compiler
def test_a_folder_that_others_can_replace_is_not_loaded_from(cache, tmp_path):
    assert native.library(SOURCE) is not None
    for mode, loads in ((0o777, False), (0o1777, True)):
        tmp_path.chmod(mode)
        native.library.cache_clear()
        assert (native.library(SOURCE) is not None) is loads


@needs_compiler
def test_what_lies_in_the_working_directory_is_not_loaded(cache, tmp_path, monkeypatch):
    assert native.library(SOURCE) is not None
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("IMGZOO_CACHE", tmp_path.name)
    native.library.cache_clear()
    assert native.library(SOURCE) is None
    monkeypatch.setenv("IMGZOO_CACHE", "~/cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert native.cache_dir() == tmp_path / "cache"


@needs_compiler
def test_another_users_folder_is_not_loaded_from(cache, monkeypatch):
    assert native.library(SOURCE) is not None
    monkeypatch.setattr(native.os, "getuid", lambda: 12345)
    native.library.cache_clear()
    assert native.library(SOURCE) is None


def test_without_a_home_nothing_lands_in_the_working_directory(tmp_path, monkeypatch):
    for name in ("IMGZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(native.os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(native.tempfile, "tempdir", str(tmp_path))
    native._homeless.cache_clear()
    mine = native.cache_dir()
    assert mine == tmp_path / f"imgzoo-{os.getuid()}" and mine.stat().st_mode & 0o777 == 0o700
    mine.chmod(0o777)  # as if another user had made it
    native._homeless.cache_clear()
    another = native.cache_dir()
    assert another.parent == tmp_path and another != mine and native.cache_dir() == another
    native._homeless.cache_clear()


def test_no_compiler_no_library(cache, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert native.library(SOURCE) is None


def test_kernels_can_be_declined(cache, monkeypatch):
    monkeypatch.setenv("IMGZOO_KERNELS", "0")
    assert native.library(SOURCE) is None


def test_an_unwritable_cache_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IMGZOO_CACHE", str(tmp_path / "file"))
    native.library.cache_clear()
    assert native.library(SOURCE) is None
    native.library.cache_clear()


@needs_compiler
def test_what_a_wheel_brought_is_loaded_without_a_compiler_unless_it_is_damaged(cache, tmp_path, monkeypatch):
    shipped = tmp_path / "compiled"
    shipped.mkdir()
    assert native.library(SOURCE) is not None
    (built,) = cache.glob("*.so")
    for level in ("plain", "v3"):
        path = shipped / f"{hashlib.sha256(SOURCE.encode()).hexdigest()[:24]}-{level}.so"
        path.write_bytes(built.read_bytes())
        path.with_suffix(".sha256").write_text(hashlib.sha256(built.read_bytes()).hexdigest())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("IMGZOO_CACHE", str(tmp_path / "none"))
    native.library.cache_clear()
    assert native.library(SOURCE) is None
    assert native.library(SOURCE, shipped).answer() == 42
    assert native.library("int other;", shipped) is None
    for path in shipped.glob("*.so"):
        whole = path.read_bytes()
        path.unlink()  # the process has the old one mapped
        path.write_bytes(whole[:-1000])
    native.library.cache_clear()
    assert native.library(SOURCE, shipped) is None
