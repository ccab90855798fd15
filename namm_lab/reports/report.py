"""Tables from the committed rows: `benchmarks/README.md` between its two marks, and what
`performance.py` makes of those of speed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from namm_lab.reports import ablations, curves, forgotten, performance, quality
from namm_lab.reports.rows import RESULTS, Row, load

PAGE = RESULTS.parent / "README.md"
START, END = "<!-- tables: python -m namm_lab.reports report -->", "<!-- end of tables -->"
COLUMNS = {
    "quality": ("task", "length", "mode", "policy", "budget_scope", "budget", "samples"),
    "ablations": (
        "ablation",
        "length",
        "budget_scope",
        "sinks",
        "protect_recent",
        "budget",
        "samples",
    ),
    "curves": ("curve", "step", "fingerprint", *curves.Plan.__dataclass_fields__),
    "forgotten": ("text", "part", "policy", "budget_scope", "budget", "kept", "anywhere"),
    "reopen": (
        "measure",
        "model",
        "policy",
        "tokens",
        "ratio",
        "cpu_ratio",
        "seconds",
        "read_seconds",
        "file_ratio",
        "file_nbytes",
        "nbytes",
    ),
}
BESIDE: dict[str, Callable[[list[Row]], list[Row]]] = {  # tables that are not row by row
    "quality": quality.side_by_side,
    "ablations": ablations.side_by_side,
    "curves": lambda rows: curves.shown(curves.newest(rows)),
    "forgotten": forgotten.side_by_side,
}
FIGURES = (
    "kept",
    "anywhere",
    "ratio",
    "cpu_ratio",
    "file_ratio",
    "file_nbytes",
    "seconds",
    "read_seconds",
    "nbytes",
)


def rows_of(path: Path) -> list[Row]:
    """The newest row of each measurement, in the order in which they were first made."""
    newest: dict[str, Row] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        settings = {
            name: value
            for name, value in row.items()
            if name in COLUMNS[path.stem] and name not in FIGURES
        }
        newest[json.dumps(settings, sort_keys=True)] = row
    return list(newest.values())


def table(name: str) -> str:
    """A markdown table of `results/NAME.jsonl`."""
    rows = rows_of(RESULTS / f"{name}.jsonl")
    shown = BESIDE[name](rows) if name in BESIDE else rows
    columns = list(shown[0]) if name in BESIDE else list(COLUMNS[name])
    lines = [
        columns,
        ["---"] * len(columns),
        *([_cell(row.get(column)) for column in columns] for row in shown),
    ]
    made = sorted(
        {
            f"{row['date']}, {row['machine']}, torch {row['torch']}, transformers {row['transformers']}"
            for row in rows
        }
    )
    return (
        f"## {name.capitalize()}\n\n"
        + "\n".join(f"| {' | '.join(line)} |" for line in lines)
        + f"\n\n{'; '.join(made)}.\n"
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def write() -> list[Path]:
    """Put the tables into the pages; the files that were written."""
    before, _, rest = PAGE.read_text().partition(START)
    after = rest.partition(END)[2]
    tables = "\n".join(table(name) for name in COLUMNS if (RESULTS / f"{name}.jsonl").exists())
    PAGE.write_text(f"{before}{START}\n\n{tables}\n{END}{after}")
    measured = curves.newest(load("curves"))
    figures = [
        quality.draw(rows_of(RESULTS / "quality.jsonl")),
        *([curves.draw(measured)] if measured else []),
    ]
    return [PAGE, *figures, *performance.write()]
