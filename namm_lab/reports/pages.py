"""Tables in Markdown pages, between two marks: `<!-- table: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from namm_lab.rows import Row

MARK = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)
WAITING = "not measured"
Columns = Mapping[str, Callable[[Row], str]]


def fill(page: Path, tables: Mapping[str, Callable[[], str]]) -> Path:
    """Make the tables of a page anew; the page."""

    def table(mark: re.Match[str]) -> str:
        return f"<!-- table: {mark[1]} -->\n\n{tables[mark[1]]()}\n\n<!-- end -->"

    page.write_text(MARK.sub(table, page.read_text()))
    return page


def markdown(columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    if not lines:
        return f"{WAITING.capitalize()}."
    shown = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in shown)


def table_of(columns: Columns, rows: Iterable[Row]) -> str:
    """One line for each row, and below them where and when they were measured."""
    shown = list(rows)
    lines = [[value(row) for value in columns.values()] for row in shown]
    table = markdown(list(columns), lines)
    return f"{table}\n\n{measured_by(shown)}" if shown else table


def measured_by(rows: Iterable[Row]) -> str:
    """`Measured 2026-01-01: 2 threads, x86_64, AVX512, torch 2.13.0.`"""
    made = sorted({f"{row['date']}: {row['machine']}, torch {row['torch']}" for row in rows})
    return f"Measured {'; '.join(made)}."


def cell(value: object) -> str:
    """A value as a table shows it."""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, int):
        return number(value)
    return "" if value is None else str(value)


def number(value: int) -> str:
    """`64 000`."""
    return f"{value:,}".replace(",", " ")
