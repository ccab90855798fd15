"""Score against the share of the prompt that was kept: one picture for each task, length and mode,
one line for each policy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from namm_lab.evaluate.plan import FULL
from namm_lab.evaluate.rows import label_of
from namm_lab.rows import Row
from namm_llm.inspect.figure import legend_below, load_matplotlib, save_figure

COLUMNS = 3
WIDTH, HEIGHT = 4.6, 3.6  # inches of one picture


def draw_scores(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Write the picture of these rows; the suffix of `path` (.png, .svg, .pdf) is its format."""
    pyplot = load_matplotlib()
    cells = {
        key: list(group)
        for key, group in groupby(rows, lambda row: (row["task"], row["length"], row["mode"]))
    }
    columns = min(COLUMNS, len(cells))
    figure, axes = pyplot.subplots(
        math.ceil(len(cells) / columns), columns, squeeze=False, layout="constrained",
        figsize=(max(6.4, WIDTH * columns), HEIGHT * math.ceil(len(cells) / columns) + 0.8),
    )  # fmt: skip
    labels = list(dict.fromkeys(label_of(row, rows) for row in rows if row["policy"] != FULL))
    colours = {label: f"C{number % 10}" for number, label in enumerate(labels)}
    for axis, (key, found) in zip(axes.flat, cells.items(), strict=False):
        _draw_cell(axis, key, found, rows, colours)
    for axis in axes.flat[len(cells) :]:
        axis.set_visible(False)
    legend_below(figure, 5)
    figure.suptitle(f"{rows[0]['model']}: score after eviction (bars: 95 %)")
    save_figure(figure, path)


def draw_fidelity(rows: Sequence[Row], model: str, path: str | os.PathLike[str]) -> None:
    """Fidelity against the share that was kept, a line for each policy; rows as `summary` gives."""
    pyplot = load_matplotlib()
    figure, axis = pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")
    by_policy = sorted(rows, key=lambda row: (row["policy"], row["kept_fraction"]))
    for number, (policy, of) in enumerate(groupby(by_policy, lambda row: str(row["policy"]))):
        line = [{**row, "score": row["fidelity"]} for row in of]
        _draw_line(axis, line, policy, f"C{number % 10}")
    axis.set_xscale("log", base=2)
    axis.set_xlabel("share of the document kept")
    axis.set_ylabel("agreement of the likeliest token with the full cache's")
    axis.set_title(f"{model}: fidelity (bars: 95 %)", fontsize="medium")
    axis.grid(alpha=0.25)
    legend_below(figure, 5)
    save_figure(figure, path)


def _draw_cell(
    axis: Any,
    key: tuple[str, int, str],
    found: list[Row],
    rows: Sequence[Row],
    colours: dict[str, str],
) -> None:
    task, length, mode = key
    axis.axhline(
        found[0]["full_score"], color="black", linestyle="--", linewidth=1, label="full cache"
    )
    for label, colour in colours.items():
        line = [row for row in found if row["policy"] != FULL and label_of(row, rows) == label]
        if line:
            _draw_line(axis, sorted(line, key=lambda row: row["kept_fraction"]), label, colour)
    ticks = sorted({2.0 ** round(math.log2(row["kept_fraction"])) for row in found})
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"1/{round(1 / tick)}" if tick < 1 else "1" for tick in ticks])
    axis.set_title(f"{task}, {length} tokens, {mode}", fontsize="medium")
    axis.set_xlabel("share of the prompt kept")
    axis.set_ylabel("one over perplexity" if "perplexity" in found[0] else "score")
    axis.set_ylim(bottom=0.0)
    axis.grid(alpha=0.25)


def _draw_line(axis: Any, line: list[Row], label: str, colour: str) -> None:
    """One policy's scores, with their intervals as bars."""
    scores = [row["score"] for row in line]
    below = [max(0.0, row["score"] - row["low"]) for row in line]
    above = [max(0.0, row["high"] - row["score"]) for row in line]
    axis.errorbar(
        [row["kept_fraction"] for row in line], scores, [below, above], color=colour, label=label,
        marker="o", markersize=4, linewidth=1.4, elinewidth=0.6, capsize=2,
    )  # fmt: skip
