"""What survives eviction: the evaluation of `namm-llm eval`, with the settings of our tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.rows import Row
from namm_llm import Evaluation, Runner, evaluate


def compare(
    *,
    model: str,
    tasks: Sequence[str],
    lengths: Sequence[int],
    policies: Sequence[str],
    budgets: Sequence[str],
    competes: Sequence[str],
    documents: int,
    questions: int,
    namms: Sequence[str],
) -> list[Row]:
    """One row for each task, length, policy, budget and competition; the same documents and questions for all."""
    plan = Evaluation(
        tasks=tuple(tasks),
        lengths=tuple(lengths),
        policies=tuple(policies) or None,
        budgets=tuple(budgets),
        namms=tuple(namms),
        compete=tuple(competes),
        samples=documents,
        questions=questions,
    )
    return evaluate(Runner.load(model), plan, on_row=_show)


def _show(row: Row, done: int, total: int) -> None:
    shown = {name: row[name] for name in ("task", "length", "eviction", "score", "full_score")}
    print(f"{done}/{total} {shown}", file=sys.stderr, flush=True)
