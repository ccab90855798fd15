"""The tables and plots of docs/performance.md, from the rows of `namm-llm bench`, `make
bench-peers` and `make bench-kvpress`, and from arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from namm_lab.bench import Benchmark, costs_of, draw_rows
from namm_lab.bench.cost import Cost
from namm_lab.bench.picture import label_of
from namm_lab.reports import gguf
from namm_lab.reports.pages import Columns, fill, markdown, number, table_of
from namm_lab.reports.results import RESULTS, results_file
from namm_lab.reports.targets import memory_of_reading, targets
from namm_lab.rows import Row

PAGE = RESULTS.parents[1] / "docs" / "performance.md"
README = RESULTS.parents[1] / "README.md"
SHORT = 2000
"""Tokens, for what does not depend on the length: bits, and transformers' other caches."""


def write() -> list[Path]:
    """Fill the page's tables and draw its plots; the files that were written."""
    rows, peers = results_file("speed").rows, results_file("peers").rows
    files = results_file("gguf").rows
    tables: dict[str, Callable[[], str]] = {
        "targets": lambda: targets(rows, peers),
        "speed": lambda: speed(row for row in rows if _plain(row) and row["length"] > SHORT),
        "batch": lambda: speed(row for row in rows if _timed(row) and row["model"] == "tiny"),
        "bits": lambda: speed(row for row in rows if _short(row) and _ours_or_reference(row)),
        "others": lambda: speed(
            row for row in rows if _short(row) and _plain(row) and not row["kv_bits"]
        ),
        "shares": lambda: shares(rows),
        "memory": lambda: memory(row for row in rows if not _timed(row)),
        "gguf": lambda: gguf.beside(files),
        "gguf_needles": lambda: gguf.needles(files),
        "peers": lambda: speed(row for row in peers if _timed(row)),
        "peers_memory": lambda: memory(row for row in peers if not _timed(row)),
        "costs": costs,
    }
    return [
        fill(PAGE, tables),
        fill(README, {"gguf": lambda: gguf.summary(files)}),
        *_plots(rows),
        *gguf.draw(files, PAGE.parent),
    ]


def _timed(row: Row) -> bool:
    return bool(row["task"] != "memory")


def _plain(row: Row) -> bool:
    """Timed, one prompt, weights and cache as they are computed, not of the tiny shape."""
    plain = row["batch"] == 1 and row["quantization"] is None and row["model"] != "tiny"
    return _timed(row) and plain


def _short(row: Row) -> bool:
    return _timed(row) and row["model"] == "100m" and row["length"] == SHORT


def _ours_or_reference(row: Row) -> bool:
    return row["contender"] in ("namm-llm", "transformers")


def _plots(rows: list[Row]) -> list[Path]:
    """One plot for each task that was measured at more than one length."""
    paths = []
    for task in ("prefill", "decode", "memory"):
        model = "tiny" if task == "memory" else "100m"
        drawn = [
            row
            for row in rows
            if (row["task"], row["model"], row["batch"]) == (task, model, 1)
            and row["quantization"] is None
        ]
        if len({row["length"] for row in drawn}) > 1:
            paths.append(PAGE.parent / f"performance-{task}.png")
            draw_rows(drawn, paths[-1])
    return paths


def speed(rows: Iterable[Row]) -> str:
    """Every timed row."""
    columns: Columns = {
        "measure": lambda row: row["task"],
        "model": lambda row: row["model"],
        "tokens": lambda row: number(row["length"]),
        "batch": lambda row: str(row["batch"]),
        "weights": lambda row: row["quantization"] or row["dtype"],
        "contender": _contender,
        "kept": lambda row: f"{row['kept_fraction']:.3f}",
        "cache MB": lambda row: f"{row['nbytes'] / 1e6:.1f}",
        "seconds": lambda row: f"{row['seconds']:.2f}",
        "tokens/s": lambda row: f"{row['score']:.1f}",
        "times as fast": lambda row: f"{row['speedup']:.2f}" if row["speedup"] else "",
        "quartiles": lambda row: _between(row, "q1", "q3"),
        "min-max": lambda row: _between(row, "low", "high"),
        "rounds": lambda row: str(row["samples"]),
    }
    return table_of(columns, rows)


def _between(row: Row, low: str, high: str) -> str:
    if not row["speedup"]:
        return ""
    return f"{row[f'speedup_{low}']:.2f}-{row[f'speedup_{high}']:.2f}"


def shares(rows: Iterable[Row]) -> str:
    """Where the time of a prefill goes."""
    columns: Columns = {
        "model": lambda row: row["model"],
        "tokens": lambda row: number(row["length"]),
        "batch": lambda row: str(row["batch"]),
        "weights": lambda row: row["quantization"] or row["dtype"],
        "policy": _contender,
        "observe": lambda row: f"{row['shares']['observe']:.1%}",
        "score": lambda row: f"{row['shares']['score']:.1%}",
        "select": lambda row: f"{row['shares']['select']:.1%}",
        "compact": lambda row: f"{row['shares']['compact']:.1%}",
        "rounds": lambda row: str(row["samples"]),
        "all of it": lambda row: f"{row['shares']['policy']:.1%}",
        "the model's forward pass": lambda row: f"{1 - row['shares']['policy']:.1%}",
    }
    return table_of(columns, (row for row in rows if row.get("shares")))


def memory(rows: Iterable[Row]) -> str:
    """Every row of peak memory."""
    columns: Columns = {
        "model": lambda row: row["model"],
        "tokens": lambda row: number(row["length"]),
        "contender": _contender,
        "kept": lambda row: f"{row['kept_fraction']:.3f}",
        "cache MB": lambda row: f"{row['nbytes'] / 1e6:.1f}",
        "peak MB": lambda row: f"{row['peak_nbytes'] / 1e6:.0f}",
        "of it for reading, MB": lambda row: f"{memory_of_reading(row) / 1e6:.0f}",
        "seconds (one reading)": lambda row: f"{row['seconds']:.1f}",
        "of the reference's peak": lambda row: f"{row['ratio']:.2f}" if row["ratio"] else "",
    }
    return table_of(columns, (row for row in rows if row["peak_nbytes"] is not None))


def costs() -> str:
    """8B and 70B by arithmetic."""
    columns: dict[str, Callable[[Cost], int]] = {
        "full cache": lambda cost: cost.full_nbytes,
        "kept": lambda cost: cost.kept_nbytes,
        "state": lambda cost: cost.state_nbytes,
        "window": lambda cost: cost.window_nbytes,
        "cache": lambda cost: cost.cache_nbytes,
        "weights + full": lambda cost: cost.full_total_nbytes,
        "weights + cache": lambda cost: cost.total_nbytes,
    }
    lines = []
    for shape in ("8b", "70b"):
        plan = Benchmark(
            shape=shape,
            lengths=(32_000, 128_000, 1_000_000),
            budgets=("0.25", "2048"),
            quantizations=("none", "int8", "nf4"),
            dtype="bfloat16",
        )
        for title, found in costs_of(plan):
            for label, cost in found:
                weights = f"{title.rpartition(' ')[2]} {_gb(cost.weights_nbytes)}"
                first = [shape, weights, number(cost.tokens), label.split()[-1]]
                lines.append([*first, *(_gb(value(cost)) for value in columns.values())])
    table = markdown(["model", "weights", "tokens", "budget", *columns], lines)
    return f"{table}\n\nGB of 10^9 bytes. With full, with cache: of weights and that cache."


def _contender(row: Row) -> str:
    """`namm-llm namm 0.25 8-bit`."""
    label = label_of(row)
    return f"{row['contender']} {label}" if row["contender"] == "namm-llm" else label


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f}" if nbytes >= 1e8 else f"{nbytes / 1e9:.3f}"
