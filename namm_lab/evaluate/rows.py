"""Results of an evaluation as rows: what each measures, what came out, and how it is called."""

from __future__ import annotations

from collections.abc import Sequence

from namm_lab.evaluate.measurement import Measurement
from namm_lab.evaluate.plan import CacheSetting, Evaluation, Mode
from namm_lab.rows import Row
from namm_lab.tasks.sample import Sample
from namm_llm import Runner, __version__

KEY = (
    "version", "model", "fingerprint", "task", "length", "mode", "policy", "budget",
    "budget_scope", "interval", "sinks", "protect_recent", "cache", "namm", "documents",
    "questions", "seed", "split", "texts",
)  # fmt: skip
"""Two rows that agree in these fields are the same measurement."""
LEAST_FULL = 0.7
"""A task on which the full cache scores less says nothing about eviction."""


def key_of(
    runner: Runner,
    plan: Evaluation,
    task: str,
    length: int,
    mode: Mode,
    setting: CacheSetting,
    texts: str,
) -> Row:
    """What a row measures, without the results. texts: fingerprint of those that documents are made
    of.
    """
    config = setting.config
    known = ("budget_scope", "interval", "sinks", "protect_recent")
    evicts = config.policy.evicts
    return {
        "version": __version__,
        "model": runner.model_id,
        "fingerprint": runner.fingerprint,
        "task": task,
        "length": length,
        "mode": mode,
        "policy": config.policy.name,
        "budget": setting.budget,
        **{name: getattr(config, name) if evicts else None for name in known},
        "cache": config.describe(),
        "namm": setting.namm,
        "namm_file": setting.namm_file,
        "documents": plan.samples,
        "questions": plan.questions,
        "seed": plan.seed,
        "split": plan.split,
        "texts": texts,
    }


def row_of(
    key: Row, measured: Measurement, samples: Sequence[Sample], full_score: float | None
) -> Row:
    """The whole row. full_score: the full cache's, None if this is its row."""
    full = measured.score if full_score is None else full_score
    low, high = measured.interval
    metrics = {question.metric for sample in samples for question in sample.questions}
    likelihood = (
        {"perplexity": 1 / measured.score} if measured.is_likelihood else {"whole": measured.whole}
    )
    return {
        **key,
        "samples": len(measured.scores),
        "metric": "/".join(sorted(metrics)),
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


def says_nothing(row: Row, least_full: float = LEAST_FULL) -> bool:
    """Whether the full cache fails on the row's task and length. Perplexity has no such bound."""
    return "perplexity" not in row and row["full_score"] < least_full


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
