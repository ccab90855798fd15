"""Long texts, in processes of their own."""

from __future__ import annotations

import pytest

from namm_lab.bench import Benchmark, run_benchmark


@pytest.mark.long
def test_peak_memory_is_flat_under_a_budget_of_tokens():
    plan = Benchmark(
        shape="tiny",
        tasks=("memory",),
        lengths=(8000, 32_000),
        policies=("namm",),
        budgets=("2048",),
        peers=(),
    )
    short, long = run_benchmark(plan)
    assert long["peak_nbytes"] <= 1.05 * short["peak_nbytes"]
