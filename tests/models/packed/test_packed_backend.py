"""The choice of kernels: probes, fallbacks and the cache of compiled libraries."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from namm_llm.errors import UsageError
from namm_llm.models.packed import choice as backends
from namm_llm.models.packed import compiler, describe, int4, make_linear, native
from namm_llm.models.packed.binding import Native, bind
from namm_llm.models.packed.choice import VARIABLE, Backend, backend
from namm_llm.models.packed.formats import FORMATS
from tests.models.packed.conftest import forget


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder for libraries, and no backend chosen yet."""
    monkeypatch.setenv("NAMM_LLM_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.delenv("CC", raising=False)
    native.load.cache_clear()
    yield tmp_path / "kernels"
    native.load.cache_clear()


def test_without_a_compiler_torch_is_used_and_it_says_so(
    uncached: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    assert backend() is Backend.TORCH
    assert describe() == (
        "packed weights: torch's int4 operator "
        "(no C compiler was found (cc, gcc, clang, CC or the package ziglang))"
    )


def test_without_any_kernel_weights_are_expanded_and_it_says_so(
    uncached: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    monkeypatch.setattr(int4, "unavailable", lambda: "torch's int4 operator fails: gone")
    assert backend() is Backend.OFF
    assert "weights are expanded" in describe()
    assert "torch's int4 operator fails: gone" in describe()
    assert make_linear(torch.zeros(4, 20, dtype=torch.uint8), "Q4_1", (4, 32)) is None


def test_an_operator_that_is_gone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise RuntimeError("no such operator")

    int4.unavailable.cache_clear()
    monkeypatch.setattr(int4.Int4Weights, "matmul", gone)
    assert int4.unavailable() == "torch's int4 operator fails: no such operator"
    int4.unavailable.cache_clear()


def test_an_operator_with_other_numbers_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    int4.unavailable.cache_clear()
    monkeypatch.setattr(int4.Int4Weights, "matmul", lambda self, x: torch.ones(len(x), self.rows))
    assert int4.unavailable() == "torch's int4 operator gives other numbers than its definition"
    int4.unavailable.cache_clear()


@pytest.mark.parametrize("function", ["multiply", "expand", "pack"])
def test_a_kernel_with_other_numbers_is_noticed(compiled: None, function: str) -> None:
    library = native.load()
    assert isinstance(library, Native)
    assert all(native.agrees(library, name) for name in FORMATS)
    idle = replace(library, **{function: lambda *_: 0})
    assert not any(native.agrees(idle, name) for name in FORMATS)


def test_the_variable_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    assert backend() is Backend.OFF
    forget()
    monkeypatch.setenv(VARIABLE, " Torch ")
    assert backend() is Backend.TORCH
    forget()
    monkeypatch.setenv(VARIABLE, "fast")
    with pytest.raises(UsageError, match="must be one of auto, compiled, torch, off, not 'fast'"):
        backend()


def test_a_chosen_backend_that_does_not_work_is_refused(
    uncached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "compiled")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(UsageError, match=r"compiled does not work here: the compiler 'no-such"):
        backend()


def test_a_compiler_that_fails_is_quoted(uncached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = uncached.parent / "cc"
    script.write_text("#!/bin/sh\necho 'packed.c:1: error: out of order' >&2\nexit 1\n")
    script.chmod(0o700)
    monkeypatch.setenv("CC", str(script))
    assert native.load() == f"{script} failed: packed.c:1: error: out of order"


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
    loaded = native.load()
    assert isinstance(loaded, str)
    assert "can be written by other users" in loaded


def test_plain_c_kernels_agree(tmp_path: Path) -> None:
    """What a CPU without AVX2 runs."""
    command = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if command is None or os.name != "posix":
        pytest.skip("no C compiler")
    made = tmp_path / "plain.so"
    assert compiler._try([command], ("-O1",), made) == ""
    library = bind(made)
    assert all(native.agrees(library, name) for name in FORMATS)


def test_the_choice_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = backend()
    monkeypatch.setenv(VARIABLE, "off")
    assert backend() is first
    assert backends._choose()[0] is first
