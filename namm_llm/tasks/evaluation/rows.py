"""Results as flat JSON objects, one a line, and the file that they are added to."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from namm_llm import __version__
from namm_llm.errors import UsageError
from namm_llm.runner import Runner
from namm_llm.tasks.evaluation.measuring import Measured
from namm_llm.tasks.evaluation.plan import Evaluation, Mode, Setting
from namm_llm.tasks.sample import Sample

Row = dict[str, Any]
# two rows that agree in these are the same measurement
KEY = (
    "version", "model", "fingerprint", "task", "length", "mode", "policy", "budget", "compete", "interval", "sinks", "recent", "eviction",
    "namm", "documents", "questions", "seed", "split", "texts",
)  # fmt: skip


def key_of(runner: Runner, plan: Evaluation, task: str, length: int, mode: Mode, setting: Setting, texts: str) -> Row:
    """What a row measures, without the results. texts: fingerprint of those that documents are made of."""
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
        "compete": eviction.compete if evicts else None,
        "interval": eviction.interval if evicts else None,
        "sinks": eviction.sinks if evicts else None,
        "recent": eviction.recent if evicts else None,
        "eviction": eviction.describe(),
        "namm": setting.namm,
        "namm_file": setting.namm_file,
        "documents": plan.samples,
        "questions": plan.questions,
        "seed": plan.seed,
        "split": plan.split,
        "texts": texts,
    }


def row_of(key: Row, measured: Measured, samples: Sequence[Sample], full_score: float | None) -> Row:
    """The whole row. full_score: the full cache's, None if this is its row."""
    full = measured.score if full_score is None else full_score
    low, high = measured.interval
    likelihood = {"perplexity": 1 / measured.score} if measured.is_likelihood else {"whole": measured.whole}
    return {
        **key,
        "samples": len(measured.scores),
        "metric": "/".join(sorted({question.metric for sample in samples for question in sample.questions})),
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
    """How the row's policy is called among these rows: `h2o`, or with what else differs, `namm (mine.safetensors), layer`."""
    label = str(row["policy"])
    if row["namm_file"] and len({other["namm_file"] for other in rows if other["namm_file"]}) > 1:
        label += f" ({row['namm_file']})"
    if len({other["compete"] for other in rows if other["policy"] == row["policy"]}) > 1:
        label += f", {row['compete']}"
    return label


class RowFile:
    """Rows in a file of JSON lines; one that was cut short while it was written is measured again."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        if self._path.is_dir() or not os.access(self._path.parent, os.W_OK):
            raise UsageError(f"{path} cannot be written: name a file in a folder that exists and may be written to")
        self._rows = {_identity(row): row for row in self._load()}

    def find(self, key: Row) -> Row | None:
        """The row of this measurement, if it was made before."""
        return self._rows.get(_identity(key))

    def add(self, row: Row) -> None:
        """Write a row; it is on disk when this returns."""
        self._rows[_identity(row)] = row
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _load(self) -> list[Row]:
        text = self._path.read_text("utf-8") if self._path.is_file() else ""
        whole, newline, rest = text.rpartition("\n")
        if rest:  # a row that was being written when the process ended
            part = self._path.with_name(f".{self._path.name}.part")
            part.write_text(whole + newline, "utf-8")
            part.replace(self._path)
        rows = [_parsed(line, number, self._path) for number, line in enumerate(whole.splitlines(), 1) if line.strip()]
        return [row for row in rows if all(name in row for name in KEY)]


def _parsed(line: str, number: int, path: Path) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise UsageError(f"{path} is no file of rows: line {number} is no JSON object; name another file.")
    return row


def _identity(row: Row) -> str:
    return json.dumps([row[name] for name in KEY])
