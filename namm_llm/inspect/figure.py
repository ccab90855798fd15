"""Figures: matplotlib without a window, one legend below all axes, and the file."""

from __future__ import annotations

import os
from typing import Any

from namm_llm.errors import NammError, UsageError
from namm_llm.io import check_writable


def check_figure(path: str | os.PathLike[str]) -> None:
    """Raise UsageError if no figure can be written there, NammError without matplotlib."""
    load_matplotlib()
    check_writable(path, ".png", ".svg", ".pdf")


def load_matplotlib() -> Any:
    """matplotlib without a window, or a NammError that names the command to install it."""
    try:
        import matplotlib
    except ImportError as error:
        raise NammError("a plot needs matplotlib: pip install 'namm-llm[plots]'.") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def legend_below(figure: Any, columns: int) -> None:
    """One legend for all axes, each name once."""
    handles = {
        label: handle
        for axis in figure.axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(columns, len(handles)),
        fontsize="small",
    )


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write the figure and close it; the suffix of `path` (.png, .svg, .pdf) is its format.

    Raises UsageError if it cannot be written.
    """
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be drawn: {error}.") from error
    finally:
        load_matplotlib().close(figure)
