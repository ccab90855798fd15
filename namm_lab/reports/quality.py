"""What survives eviction: the evaluation of `namm-llm eval`, with the settings of our tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from namm_lab.evaluate import Evaluation, draw_scores, evaluate
from namm_lab.reports.results import RESULTS
from namm_lab.rows import Row
from namm_llm import Runner

BUNDLED = "namm-tiny"
FIGURE = RESULTS.parents[1] / "docs" / "quality.png"


def compare(
    *,
    model: str,
    tasks: Sequence[str],
    lengths: Sequence[int],
    policies: Sequence[str],
    budgets: Sequence[str],
    scopes: Sequence[str],
    documents: int,
    questions: int,
    namms: Sequence[str],
) -> list[Row]:
    """One row for each task, length, policy, budget and budget scope; the same documents and
    questions for all.
    """
    plan = Evaluation(
        tasks=tuple(tasks),
        lengths=tuple(lengths),
        policies=tuple(policies) or None,
        budgets=tuple(budgets),
        namms=tuple(namms),
        budget_scope=tuple(scopes),
        samples=documents,
        questions=questions,
    )
    return evaluate(Runner.load(model), plan, on_row=_show)


def side_by_side(rows: Sequence[Row]) -> list[Row]:
    """One row for each task, length, policy and number of questions, with a column for each budget:
    the score.

    MB: all that the cache holds at a budget of a quarter, beside the full cache's.
    """
    evicting = [row for row in rows if row["policy"] != "full"]
    budgets = sorted(
        {row["budget"] for row in evicting if row["budget"] is not None}, key=float, reverse=True
    )
    columns = (*budgets, *(["threshold"] if any(row["budget"] is None for row in evicting) else []))
    table: dict[tuple[object, ...], Row] = {}
    for row in evicting:
        first = {
            "model": row["model"],
            "task": row["task"],
            "tokens": row["length"],
            "policy": row["policy"],
            "budget scope": row["budget_scope"],
            "asked": row["samples"],
        }
        line = table.setdefault(
            tuple(first.values()),
            {
                **first,
                **dict.fromkeys(columns),
                "full cache": row["full_score"],
                "MB at 0.25": None,
            },
        )
        line[row["budget"] or "threshold"] = row["score"]
        line["MB full"] = row["full_nbytes"] / 1e6
        if row["budget"] == "0.25":
            line["MB at 0.25"] = row["nbytes"] / 1e6
    return sorted(table.values(), key=_order)


def _order(line: Row) -> tuple[bool, str, bool, str, int, float]:
    """The bundled model first, perplexities last; of each task and length the best first."""
    return (
        line["model"] != BUNDLED,
        line["model"],
        line["task"] in ("prose", "code"),
        line["task"],
        line["tokens"],
        -(line.get("0.0625") or line.get("0.25") or 0.0),
    )


def draw(rows: Sequence[Row]) -> Path:
    """`docs/quality.png`: exact match of single facts against what was kept."""
    facts = [
        row
        for row in rows
        if (row["model"], row["task"]) == (BUNDLED, "fact")
        and (row["policy"] == "full" or row["budget"] is not None)
    ]
    draw_scores(sorted(facts, key=lambda row: row["length"]), FIGURE)
    return FIGURE


def _show(row: Row, done: int, total: int) -> None:
    shown = {name: row[name] for name in ("task", "length", "cache", "score", "full_score")}
    print(f"{done}/{total} {shown}", file=sys.stderr, flush=True)
