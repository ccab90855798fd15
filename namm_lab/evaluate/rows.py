"""Results as flat JSON objects, one a line."""

from __future__ import annotations

from collections.abc import Sequence

from namm_lab.evaluate.measuring import Measured
from namm_lab.evaluate.plan import Evaluation, Mode, Setting
from namm_lab.evaluate.rowfile import JsonRows, Row
from namm_lab.tasks.sample import Sample
from namm_llm.runner import Runner
from namm_llm.version import __version__

# two rows that agree in these are the same measurement
KEY = (
    "version", "model", "fingerprint", "task", "length", "mode", "policy", "budget", "budget_scope", "interval", "sinks", "protect_recent", "eviction",
    "namm", "documents", "questions", "seed", "split", "texts",
)  # fmt: skip


def key_of(
    runner: Runner,
    plan: Evaluation,
    task: str,
    length: int,
    mode: Mode,
    setting: Setting,
    texts: str,
) -> Row:
    """What a row measures, without the results. texts: fingerprint of those that documents are made
    of.
    """
    eviction, evicts = setting.eviction, setting.eviction.policy.evicts
    return {
        "version": __version__,
        "model": runner.model_id,
        "fingerprint": runner.fingerprint,
        "task": task,
        "length": length,
        "mode": mode,
        "policy": setting.policy,
        "budget": setting.budget,
        "budget_scope": eviction.budget_scope if evicts else None,
        "interval": eviction.interval if evicts else None,
        "sinks": eviction.sinks if evicts else None,
        "protect_recent": eviction.protect_recent if evicts else None,
        "eviction": eviction.describe(),
        "namm": setting.namm,
        "namm_file": setting.namm_file,
        "documents": plan.samples,
        "questions": plan.questions,
        "seed": plan.seed,
        "split": plan.split,
        "texts": texts,
    }


def row_of(
    key: Row, measured: Measured, samples: Sequence[Sample], full_score: float | None
) -> Row:
    """The whole row. full_score: the full cache's, None if this is its row."""
    full = measured.score if full_score is None else full_score
    low, high = measured.interval
    likelihood = (
        {"perplexity": 1 / measured.score} if measured.is_likelihood else {"whole": measured.whole}
    )
    return {
        **key,
        "samples": len(measured.scores),
        "metric": "/".join(
            sorted({question.metric for sample in samples for question in sample.questions})
        ),
        "score": measured.score,
        "low": low,
        "high": high,
        "full_score": full,
        "share": measured.score / full if full else None,
        **likelihood,
        "tokens": measured.mean("seen_tokens"),
        "kept_fraction": measured.mean("kept_fraction"),
        "nbytes": round(measured.mean("nbytes")),
        "full_nbytes": round(measured.mean("full_nbytes")),
        "seconds": round(measured.seconds, 3),
    }


def label_of(row: Row, rows: Sequence[Row]) -> str:
    """How the row's policy is called among these rows: `h2o`, or with what else differs, `namm
    (mine.safetensors), layer`.
    """
    label = str(row["policy"])
    if row["namm_file"] and len({other["namm_file"] for other in rows if other["namm_file"]}) > 1:
        label += f" ({row['namm_file']})"
    if len({other["budget_scope"] for other in rows if other["policy"] == row["policy"]}) > 1:
        label += f", {row['budget_scope']}"
    return label


class RowFile(JsonRows):
    """The file that results are added to. Raises UsageError."""

    KEY = KEY
