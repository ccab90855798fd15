"""Tests of packed weights: each backend in turn, and random blocks of every format."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from namm_llm.models.packed import choice as backends
from namm_llm.models.packed import native
from namm_llm.models.packed.choice import VARIABLE, Backend
from namm_llm.models.packed.formats import FORMATS, parse


def forget() -> None:
    """Choose the backend anew at its next use."""
    backends.backend.cache_clear()
    backends._choose.cache_clear()


@pytest.fixture(autouse=True)
def _chosen_anew() -> Iterator[None]:
    torch.manual_seed(0)
    forget()
    yield
    forget()


@pytest.fixture(params=["compiled", "torch"])
def each_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Both backends, one after the other."""
    if request.param == "compiled" and isinstance(native.load(), str):
        pytest.skip(str(native.load()))
    monkeypatch.setenv(VARIABLE, request.param)
    return backends.backend()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled kernels only."""
    if isinstance(native.load(), str):
        pytest.skip(str(native.load()))
    monkeypatch.setenv(VARIABLE, "compiled")


@pytest.fixture
def blocks() -> Callable[[str, int, int], tuple[Tensor, Tensor]]:
    """Random blocks of a format, and the float32 weights that they stand for."""

    def make(name: str, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(rows * 1000 + columns)
        raw = native.random_blocks(name, rows, columns, generator)
        return raw, parse(raw, FORMATS[name]).values()

    return make


def distance(found: Tensor, wanted: Tensor) -> float:
    """Size of the difference as a share of the size of what is wanted."""
    difference = (found.double() - wanted.double()).norm() / wanted.double().norm()
    return float(difference)
