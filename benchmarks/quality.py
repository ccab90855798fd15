"""What survives eviction: exact match of answers to questions that are asked after a document was read, policy by policy.

Documents are the demo's: Python's help pages with a record every 128 tokens, whose words no training has seen.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from benchmarks.rows import Row
from examples.demo import Record, build
from namm_llm import Runner

UNTRAINED = ("streaming_llm", "h2o", "snapkv", "tova", "knorm", "keydiff", "random")


def compare(
    *,
    model: str,
    policies: Sequence[str],
    budgets: Sequence[float],
    competes: Sequence[str],
    records: int,
    documents: int,
    questions: int,
    namm: str | None,
) -> list[Row]:
    """One row for each policy, budget and competition; the same documents and questions for all."""
    full = Runner.load(model)
    texts = [build(full, seed, records) for seed in range(100, 100 + documents)]
    whole = _score(full, texts, questions)
    rows = [_row(full, whole, whole, None, "-")]
    for policy in policies or UNTRAINED:
        for compete in competes:
            for budget in budgets:
                runner = Runner.load(model, policy=policy, budget=budget, compete=compete, namm=namm if policy == "namm" else None)
                rows.append(_row(runner, _score(runner, texts, questions), whole, budget, compete))
                print({k: rows[-1][k] for k in ("policy", "compete", "budget", "score", "full_score")}, file=sys.stderr, flush=True)
    return rows


def _score(runner: Runner, texts: list[tuple[str, list[Record]]], questions: int) -> Row:
    right, start, infos = 0, time.perf_counter(), []
    for text, records in texts:
        asked = records[:: max(1, len(records) // questions)][:questions]
        document = runner.read(text)
        infos.append(document.info())
        answers = document.ask_many([record.question for record in asked], max_tokens=32)
        right += sum(record.answered_by(answer.text) for record, answer in zip(asked, answers, strict=True))
    mean = {name: sum(info[name] for info in infos) / len(infos) for name in ("seen_tokens", "kept_fraction", "nbytes", "full_nbytes")}
    return {"score": right / (questions * len(texts)), "samples": questions * len(texts), "seconds": time.perf_counter() - start} | mean


def _row(runner: Runner, found: Row, whole: Row, budget: float | None, compete: str) -> Row:
    return {
        "measure": "exact match, question after eviction",
        "model": runner.model_id,
        "task": "single fact",
        "policy": runner.eviction.policy.name,
        "budget": budget,
        "compete": compete,
        "tokens": round(found["seen_tokens"]),
        "samples": found["samples"],
        "score": found["score"],
        "full_score": whole["score"],
        "kept_fraction": found["kept_fraction"],
        "nbytes": round(found["nbytes"]),
        "full_nbytes": round(found["full_nbytes"]),
        "seconds": found["seconds"],
    }
