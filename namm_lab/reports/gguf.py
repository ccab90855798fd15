"""Ours beside llama.cpp, OpenVINO and transformers on one GGUF file: tables and a plot, from the
rows of `namm-llm bench --peers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from namm_lab.bench import draw_rows
from namm_lab.bench.picture import label_of
from namm_lab.reports.pages import Columns, markdown, number, table_of
from namm_lab.rows import Row

PLOT = "performance-peers.png"
OURS = "0.25"
"""The budget that the sides are compared with."""


def beside(rows: Sequence[Row]) -> str:
    """One line for each side at each length, and the plot below it."""
    merged = _merged(rows)
    columns: Columns = {
        "model": lambda row: row["model"],
        "tokens": lambda row: number(row["length"]),
        "side": name_of,
        "first token, s": lambda row: _figure(row, "prefill", "seconds", "{:.1f}"),
        "prefill tokens/s": lambda row: _speed(row, "prefill"),
        "decode tokens/s": lambda row: _speed(row, "decode"),
        "cache MB": lambda row: _megabytes(row["nbytes"]),
        "peak MB": lambda row: _megabytes(row.get("process_nbytes")),
        "ours over it, prefill": lambda row: _times(merged, row, "prefill"),
        "ours over it, decode": lambda row: _times(merged, row, "decode"),
        "rounds": lambda row: _figure(row, "decode", "samples", "{}"),
    }
    table = table_of(columns, merged)
    programs = sorted({row["peer"] for row in rows if row.get("peer")})
    told = f"\n\n{'; '.join(programs)}." if programs else ""
    plot = f"\n\n![tokens a second against the length of the text, all sides]({PLOT})"
    return f"{table}{told}{plot if _drawn(rows) else ''}"


def needles(rows: Iterable[Row]) -> str:
    """Of the needles that a side's full cache answers, those that its evicting cache answers."""
    asked = [row for row in rows if row["task"] == "needles"]
    full = {_place(row): row["answers"] for row in asked if row["policy"] == "full"}
    lines = []
    for row in asked:
        known = full.get(_place(row))
        if row["policy"] == "full" or known is None:
            continue
        both = sum(a and b for a, b in zip(known, row["answers"], strict=True))
        lines.append(
            [
                row["model"],
                row["text"],
                number(row["length"]),
                row["budget"],
                name_of(row),
                f"{both} of {sum(known)}",
                f"{sum(known)} of {len(known)}",
            ]
        )
    head = ["model", "text", "tokens", "kept", "side", "answered", "by its full cache"]
    return markdown(head, sorted(lines))


def summary(rows: Sequence[Row]) -> str:
    """For the README: the longest text that was read, or nothing if none was."""
    merged = [row for row in _merged(rows) if "decode" in row["tasks"]]
    if not merged:
        return ""
    model = merged[0]["model"]
    longest = max(row["length"] for row in merged if row["model"] == model)
    shown = [row for row in merged if (row["model"], row["length"]) == (model, longest)]
    columns: Columns = {
        "side": name_of,
        "prefill tokens/s": lambda row: _figure(row, "prefill", "score", "{:.0f}"),
        "decode tokens/s": lambda row: _figure(row, "decode", "score", "{:.1f}"),
        "peak MB": lambda row: _megabytes(row.get("process_nbytes")),
    }
    head = f"The same file ({model}), {number(longest)} tokens of text, the same threads, in turn:"
    return f"{head}\n\n{table_of(columns, shown)}"


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Prefill and decode against the length, for the model that was measured first."""
    drawn = _drawn(rows)
    if not drawn:
        return []
    draw_rows(drawn, folder / PLOT)
    return [folder / PLOT]


def _drawn(rows: Iterable[Row]) -> list[Row]:
    timed = [row for row in rows if row["task"] in ("prefill", "decode")]
    shown = [row for row in timed if row["model"] == timed[0]["model"]]
    return shown if len({row["length"] for row in shown}) > 1 else []


def name_of(row: Row) -> str:
    """`namm-llm replay 0.25`, `openvino eviction 2048`."""
    label = label_of(row)
    return f"{row['contender']} {label}" if row["contender"] == "namm-llm" else label


def _merged(rows: Iterable[Row]) -> list[Row]:
    """One row for each side at each length, with its rows by task under `tasks`."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        if row["task"] != "needles":
            key = tuple(str(row.get(name)) for name in ("model", "text", "length"))
            merged = found.setdefault((*key, name_of(row)), {**row, "tasks": {}})
            merged["tasks"][row["task"]] = row
            for name in ("process_nbytes", "nbytes"):
                merged[name] = row.get(name) or merged.get(name)
    return sorted(found.values(), key=lambda row: (row["model"], row["length"]))


def _place(row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in ("contender", "model", "text", "length"))


def _figure(row: Row, task: str, name: str, form: str) -> str:
    found = row["tasks"].get(task)
    return form.format(found[name]) if found is not None else ""


def _speed(row: Row, task: str) -> str:
    """`120 (110-125)`: the median and the spread of the rounds."""
    found = row["tasks"].get(task)
    if found is None:
        return ""
    tokens = found["score"] * found["seconds"]
    slow, fast = tokens / max(found["rounds"]), tokens / min(found["rounds"])
    return f"{found['score']:.1f} ({slow:.1f}-{fast:.1f})"


def _times(merged: list[Row], row: Row, task: str) -> str:
    """How many times as fast ours is, round by round, with its spread."""
    theirs = row["tasks"].get(task)
    mine = [
        each["tasks"].get(task)
        for each in merged
        if each["contender"] == "namm-llm"
        and each["budget"] == OURS
        and all(each.get(name) == row.get(name) for name in ("model", "text", "length"))
    ]
    ours = mine[0] if mine else None
    if theirs is None or ours is None or theirs is ours or theirs["together"] != ours["together"]:
        return ""
    ratios = [b / a for a, b in zip(ours["rounds"], theirs["rounds"], strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _megabytes(nbytes: int | None) -> str:
    return f"{nbytes / 1e6:.0f}" if nbytes else ""
