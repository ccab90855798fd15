"""Rows as a picture: one plot for each task, length against speed or memory, one line for each
contender.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from namm_lab.rows import Row
from namm_llm import UsageError
from namm_llm.inspect.figure import legend_below, load_matplotlib, save_figure

_AXES = {
    "prefill": "tokens a second, reading",
    "decode": "tokens a second, decoding",
    "memory": "peak memory, GB",
}
WIDTH, HEIGHT = 4.6, 3.6  # inches of one plot


def label_of(row: Row) -> str:
    """`namm 0.25`, `namm 0.25 8-bit`, `transformers`, `kvpress knorm 0.25`."""
    bits = f"{row['kv_bits']}-bit" if row["kv_bits"] else None
    ours = row["contender"] == "namm-llm"
    names = (
        None if ours else row["contender"],
        row["policy"] if ours or row["policy"] != "full" else None,
        row["budget"],
        bits,
    )
    return " ".join(part for part in names if part)


def _line(row: Row, others: bool) -> str:
    """Beside other programs ours has its name."""
    ours = others and row["contender"] == "namm-llm"
    return f"namm-llm {label_of(row)}" if ours else label_of(row)


def draw_rows(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Write the picture; the suffix of `path` (.png, .svg, .pdf) is its format.

    Raises UsageError for a path that cannot be written or if there are no rows.
    """
    pyplot = load_matplotlib()
    tasks = [task for task in _AXES if any(row["task"] == task for row in rows)]
    if not tasks:
        raise UsageError("there are no rows to draw.")
    figure, axes = pyplot.subplots(
        1,
        len(tasks),
        squeeze=False,
        layout="constrained",
        figsize=(max(6.4, WIDTH * len(tasks)), HEIGHT + 1.2),
    )
    others = any(row.get("peer") for row in rows)
    rows = [row | {"label": _line(row, others)} for row in rows]
    labels = list(dict.fromkeys(row["label"] for row in rows))
    colours = {label: f"C{number % 10}" for number, label in enumerate(labels)}
    for axis, task in zip(axes.flat, tasks, strict=True):
        _draw_task(axis, task, [row for row in rows if row["task"] == task], colours)
    legend_below(figure, 4)
    figure.suptitle(
        ", ".join(dict.fromkeys(row["model"] for row in rows))
        + ": "
        + ", ".join(dict.fromkeys(row["machine"] for row in rows))
    )
    save_figure(figure, path)


def _draw_task(axis: Any, task: str, rows: list[Row], colours: dict[str, str]) -> None:
    for label, colour in colours.items():
        line = sorted(
            (row for row in rows if row["label"] == label and row["score"] is not None),
            key=lambda row: row["length"],
        )
        if not line:
            continue
        heights = [row["score"] / 1e9 if task == "memory" else row["score"] for row in line]
        axis.plot(
            [row["length"] for row in line],
            heights,
            color=colour,
            label=label,
            marker="o",
            markersize=4,
            linewidth=1.4,
        )
    axis.set_xscale("log", base=2)
    ticks = sorted({row["length"] for row in rows})
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=30, fontsize="small")
    axis.minorticks_off()
    axis.set_xlabel("tokens")
    axis.set_ylabel(_AXES[task])
    axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
    axis.grid(alpha=0.25)
