"""The page's plots as a picture: kept by layer and head, age of what is kept, kinds of tokens."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from torch import Tensor

from namm_lab.evaluate import load_matplotlib, save_figure
from namm_llm.inspect.inspection import Inspection, Side

COLOURS = ("#2563eb", "#d96900")
BINS = 60


def draw_plots(inspection: Inspection, path: str | os.PathLike[str]) -> None:
    """Write the picture; the suffix of `path` (.png, .svg, .pdf) is its format. NammError without
    matplotlib.
    """
    pyplot = load_matplotlib()
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    for axis, draw in zip(axes, (_layers, _age, _kinds), strict=True):
        for number, side in enumerate(inspection.sides):
            draw(axis, inspection, side, number)
    axes[0].legend(fontsize="small", loc="upper right")
    figure.suptitle(
        f"{inspection.name}: what the cache of {inspection.model} kept of {len(inspection.pieces)} tokens",
        parse_math=False,
    )
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
    shares = share_by_age(side.shares)
    ages = np.linspace(len(side.shares), 0, len(shares) + 1)
    axis.stairs(shares, ages, color=COLOURS[number], fill=True, alpha=0.18)
    axis.stairs(shares, ages, color=COLOURS[number])
    axis.set_xlim(len(side.shares), 0)
    _finish(axis, "age of what is kept", "tokens before the end")


def share_by_age(shares: Tensor, bins: int = BINS) -> list[float]:
    """Means of `[tokens]` in equal parts of the document, the oldest first."""
    return [float(part.mean()) for part in shares.tensor_split(min(bins, len(shares)))]


def _kinds(axis: Any, inspection: Inspection, side: Side, number: int) -> None:
    names = sorted(set(inspection.kinds) - {""})
    kinds, held = np.array(inspection.kinds), side.shares.numpy()
    shares = [float(held[kinds == name].mean()) for name in names]
    height = 0.8 / len(inspection.sides)
    at = np.arange(len(names)) + height * (number - (len(inspection.sides) - 1) / 2)
    axis.barh(at, shares, height, color=COLOURS[number], alpha=0.7)
    axis.set_yticks(range(len(names)), names)
    if number == 0:
        axis.invert_yaxis()
    axis.set_title("kinds of tokens kept", fontsize="medium")
    axis.set_xlabel("share of their places kept")
    axis.set_xlim(0, 1)
    axis.grid(axis="x", alpha=0.25)


def _finish(axis: Any, title: str, label: str) -> None:
    axis.set_title(title, fontsize="medium")
    axis.set_xlabel(label)
    axis.set_ylim(0, 1)
    axis.grid(axis="y", alpha=0.25)
