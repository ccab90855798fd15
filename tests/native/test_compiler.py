"""Compilation at run time and the cache of compiled libraries."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from namm_llm.native import compiler, load


def test_a_compiler_that_fails_is_quoted(uncached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = uncached.parent / "cc"
    script.write_text("#!/bin/sh\necho 'kernels.c:1: error: out of order' >&2\nexit 1\n")
    script.chmod(0o700)
    monkeypatch.setenv("CC", str(script))
    assert load() == f"{script} failed: kernels.c:1: error: out of order"


def test_a_library_is_compiled_once(uncached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which("cc") or shutil.which("gcc")
    if real is None:
        pytest.skip("no C compiler")
    calls, script = uncached.parent / "calls", uncached.parent / "cc"
    script.write_text(f'#!/bin/sh\necho called >> "{calls}"\nexec {real} "$@" -O0\n')
    script.chmod(0o700)
    monkeypatch.setenv("CC", str(script))
    first = compiler.compiled()
    assert compiler.compiled() == first
    assert calls.read_text().count("called") == 1
    assert [path.name for path in uncached.iterdir()] == [first.name]


def test_a_library_that_others_can_write_is_not_loaded(uncached: Path) -> None:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler")
    uncached.mkdir()
    uncached.chmod(0o777)
    loaded = load()
    assert isinstance(loaded, str)
    assert "can be written by other users" in loaded


def test_kernels_can_be_switched_off(uncached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMM_LLM_KERNELS", "off")
    assert load() == "NAMM_LLM_KERNELS=off"
    assert not uncached.exists()
