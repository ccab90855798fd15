"""The tables and figures of `benchmarks/README.md` and `docs/`, from the committed rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from namm_lab.reports import ablations, curves, forgotten, performance, quality
from namm_lab.reports.pages import cell, fill, markdown, measured_by
from namm_lab.reports.results import RESULTS, results_file
from namm_lab.rows import Row

PAGE = RESULTS.parent / "README.md"
REOPEN = (
    "model", "policy", "tokens", "ratio", "cpu_ratio", "seconds", "read_seconds", "file_ratio",
    "file_nbytes", "nbytes",
)  # fmt: skip
SHOWN: dict[str, Callable[[Sequence[Row]], list[Row]]] = {
    "quality": quality.side_by_side,
    "ablations": ablations.side_by_side,
    "curves": lambda rows: curves.shown(curves.newest(rows)),
    "forgotten": forgotten.side_by_side,
    "reopen": lambda rows: [{name: row[name] for name in REOPEN} for row in rows],
}
"""What a table shows of a report's rows."""


def table(name: str) -> str:
    """The Markdown table of a report."""
    rows = results_file(name).rows
    shown = SHOWN[name](rows)
    if not shown:
        return markdown((), ())
    lines = [[cell(value) for value in line.values()] for line in shown]
    return f"{markdown(list(shown[0]), lines)}\n\n{measured_by(rows)}"


def write() -> list[Path]:
    """Make all tables and figures anew; the files that were written."""
    page = fill(PAGE, {name: partial(table, name) for name in SHOWN})
    measured = curves.newest(results_file("curves").rows)
    return [
        page,
        quality.draw(results_file("quality").rows),
        *([curves.draw(measured)] if measured else []),
        *performance.write(),
    ]
