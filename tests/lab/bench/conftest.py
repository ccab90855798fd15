"""A shape so small that a whole benchmark takes a moment."""

from __future__ import annotations

import pytest

from namm_lab.bench import shapes
from namm_lab.bench.shapes import Shape


@pytest.fixture
def least(monkeypatch: pytest.MonkeyPatch) -> str:
    """Its name; as wide as a block of 4-bit weights."""
    monkeypatch.setitem(
        shapes.SHAPES, "least", Shape("least", 64, 128, 2, 4, 2, 64, 16, positions=4096)
    )
    return "least"
