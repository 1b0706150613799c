"""Compiled functions: kept in the cache, and done without where there is no compiler."""

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
    (built,) = cache.iterdir()
    native.library.cache_clear()
    monkeypatch.setattr(native.subprocess, "run", None)
    assert native.library(SOURCE).answer() == 42
    assert [*cache.iterdir()] == [built]


@needs_compiler
def test_code_that_does_not_compile_is_done_without(cache):
    assert native.library("not C") is None
    assert not [*cache.iterdir()]


@needs_compiler
def test_a_damaged_library_is_done_without(cache, tmp_path, monkeypatch):
    assert native.library(SOURCE) is not None
    (built,) = cache.iterdir()
    damaged = tmp_path / "other" / "kernels" / built.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"not a library")
    monkeypatch.setenv("IMGZOO_CACHE", str(tmp_path / "other"))
    native.library.cache_clear()
    assert native.library(SOURCE) is None


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
