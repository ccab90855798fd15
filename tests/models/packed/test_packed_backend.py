"""The choice of kernels: probes and fallbacks."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from namm_llm.errors import UsageError
from namm_llm.models.packed import choice as backends
from namm_llm.models.packed import describe, int4, make_linear, native
from namm_llm.models.packed.binding import Native, bind
from namm_llm.models.packed.choice import VARIABLE, Backend, backend
from namm_llm.models.packed.formats import FORMATS
from namm_llm.native import compiler, open_library
from tests.models.packed.conftest import forget


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


def test_plain_c_kernels_agree(tmp_path: Path) -> None:
    """What a CPU without AVX2 runs."""
    command = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if command is None or os.name != "posix":
        pytest.skip("no C compiler")
    made = tmp_path / "plain.so"
    assert compiler._try([command], ("-O1",), made) == ""
    library = bind(open_library(made))
    assert all(native.agrees(library, name) for name in FORMATS)


def test_the_choice_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = backend()
    monkeypatch.setenv(VARIABLE, "off")
    assert backend() is first
    assert backends._choose()[0] is first
