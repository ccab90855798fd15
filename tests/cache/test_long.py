"""Long texts, in processes of their own."""

from __future__ import annotations

import pytest

from benchmarks.memory import peak_process_bytes


@pytest.mark.long
def test_peak_memory_is_flat_under_a_budget_of_tokens():
    short, long = peak_process_bytes("tiny", "bfloat16", "namm", 2048, (8000, 32_000))
    assert long["nbytes"] <= 1.05 * short["nbytes"]
