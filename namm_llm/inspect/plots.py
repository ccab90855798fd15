"""The page's plots as a picture: kept by layer and head, age of what is kept, kinds of tokens."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from namm_llm.inspect.figure import load_matplotlib, save_figure
from namm_llm.inspect.inspection import Inspection, Side
from namm_llm.inspect.rows import kept_by_kind

COLOURS = ("#2563eb", "#d96900")
BINS = 60


def draw_plots(inspection: Inspection, path: str | os.PathLike[str]) -> None:
    """Write the picture; the suffix of `path` (.png, .svg, .pdf) is its format.

    Raises NammError without matplotlib, UsageError if the path cannot be written.
    """
    pyplot = load_matplotlib()
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    for axis, draw in zip(axes, (_layers, _age, _kinds), strict=True):
        for number, side in enumerate(inspection.sides):
            draw(axis, inspection, side, number)
    axes[0].legend(fontsize="small", loc="upper right")
    kept = f"what the cache of {inspection.model} kept of {len(inspection.pieces)} tokens"
    figure.suptitle(f"{inspection.name}: {kept}", parse_math=False)
    save_figure(figure, path)


def _layers(axis: Any, inspection: Inspection, side: Side, number: int) -> None:
    """A bar for each layer, a dot for each of its heads."""
    heads = side.held.float().mean(2).numpy()
    width = 0.8 / len(inspection.sides)
    at = np.arange(len(inspection.layers)) + width * (number - (len(inspection.sides) - 1) / 2)
    axis.bar(at, heads.mean(1), width, color=COLOURS[number], alpha=0.55, label=side.policy)
    axis.scatter(
        np.repeat(at, heads.shape[1]), heads.flatten(), s=14, color=COLOURS[number], zorder=3
    )
    axis.set_xticks(range(len(inspection.layers)), [str(layer) for layer in inspection.layers])
    _finish(axis, "kept by layer (dots: its KV heads)", "layer")
    axis.set_ylabel("share of the tokens kept")


def _age(axis: Any, inspection: Inspection, side: Side, number: int) -> None:
    # means over equal parts of the document, the oldest first
    parts = side.shares.tensor_split(min(BINS, len(side.shares)))
    shares = [float(part.mean()) for part in parts]
    ages = np.linspace(len(side.shares), 0, len(shares) + 1)
    axis.stairs(shares, ages, color=COLOURS[number], fill=True, alpha=0.18)
    axis.stairs(shares, ages, color=COLOURS[number])
    axis.set_xlim(len(side.shares), 0)
    _finish(axis, "age of what is kept", "tokens before the end")


def _kinds(axis: Any, inspection: Inspection, side: Side, number: int) -> None:
    shares = {
        kind: float(held.float().mean()) for kind, held in kept_by_kind(inspection, side).items()
    }
    height = 0.8 / len(inspection.sides)
    at = np.arange(len(shares)) + height * (number - (len(inspection.sides) - 1) / 2)
    axis.barh(at, list(shares.values()), height, color=COLOURS[number], alpha=0.7)
    axis.set_yticks(range(len(shares)), list(shares))
    if number == 0:
        axis.invert_yaxis()
    axis.set_title("kinds of tokens kept", fontsize="medium")
    axis.set_xlabel("share of their entries kept")
    axis.set_xlim(0, 1)
    axis.grid(axis="x", alpha=0.25)


def _finish(axis: Any, title: str, label: str) -> None:
    axis.set_title(title, fontsize="medium")
    axis.set_xlabel(label)
    axis.set_ylim(0, 1)
    axis.grid(axis="y", alpha=0.25)
