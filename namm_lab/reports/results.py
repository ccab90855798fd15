"""The committed results: one file of rows for each report, in `benchmarks/results/`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from namm_lab.bench import MEASUREMENT
from namm_lab.rows import Row, RowFile, machine

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
_CURVE = (
    "model", "tasks", "length", "documents", "generations", "every", "population", "questions",
    "validation", "budgets",
)  # fmt: skip
KEYS = {
    "quality": ("model", "task", "length", "mode", "policy", "budget_scope", "budget", "samples"),
    "ablations": (
        "ablation", "fingerprint", "task", "length", "mode", "cache", "namm", "budget",
        "documents", "questions", "seed", "texts",
    ),
    "curves": ("curve", "step", "fingerprint", *_CURVE),
    "forgotten": ("model", "text", "part", "policy", "budget_scope", "budget"),
    "beyond": ("model", "text", "policy", "budget", "protect_recent", "length", "last"),
    "asked": ("model", "policy", "budget", "length", "questions", "document"),
    "joined": ("model", "length", "count", "questions", "split", "budget", "group", "way"),
    "reopen": ("measure", "model", "policy", "tokens"),
    "gpu": ("measure", "policy", "budget", "tokens", "device"),
    "speed": MEASUREMENT,
    "peers": MEASUREMENT,
    "gguf": MEASUREMENT,
}  # fmt: skip
"""Two rows of a report that agree in these fields are the same measurement, of which the newer one
counts, whichever machine, versions and number of rounds it had; the tables say what it had."""


def results_file(name: str) -> RowFile:
    """The file of a report's rows."""
    RESULTS.mkdir(exist_ok=True)
    return RowFile(RESULTS / f"{name}.jsonl", KEYS[name])


def add_rows(name: str, rows: Iterable[Row]) -> Path:
    """Add rows to a report's file, with the machine; where they are."""
    file = results_file(name)
    for row in rows:
        file.add(row | machine())
    return file.path
