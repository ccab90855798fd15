"""Ours, transformers and kvpress in turn, on weights that are saved once and loaded by all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from namm_lab.bench import KEY, Benchmark, run_benchmark, save_model
from namm_lab.reports.peers.contender import PYTHON, Kvpress, KvpressContender
from namm_lab.rows import Row, RowFile
from namm_llm import UsageError


def plan_of(shape: str, **settings: Any) -> Benchmark:
    """A plan in which every head keeps the same number of tokens, as kvpress does it, beside
    transformers' whole prompt.
    """
    return Benchmark(shape=shape, peers=("transformers-whole",), budget_scope="head", **settings)


def compare(
    plan: Benchmark,
    presses: Sequence[str],
    path: Path,
    note: Callable[[str], None],
    *,
    again: bool = False,
) -> list[Row]:
    """All rows of the plan and of the presses, at the plan's one budget. Raises NammError."""
    if not PYTHON.exists():
        raise UsageError("kvpress has no environment yet; make it with: make bench-kvpress.")
    (budget,) = plan.budgets
    with tempfile.TemporaryDirectory() as folder:
        dtype = save_model(plan, folder)
        kvpress = Kvpress(folder, dtype, str(plan.torch_device()))
        try:
            others = [KvpressContender(kvpress, press, budget) for press in presses]
            return run_benchmark(
                plan, file=RowFile(path, KEY), on_note=note, others=others, again=again
            )
        finally:
            kvpress.close()
