"""Tables and plots of docs/performance.md, from the rows of `namm-llm bench` and `make
bench-peers`, and from arithmetic.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from namm_lab.bench import Benchmark, costs_of, draw_rows
from namm_lab.reports.rows import RESULTS, Row

PAGE = RESULTS.parent.parent / "docs" / "performance.md"
MARK = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)
WAITING = "not measured"
MEASUREMENT = (
    "model", "task", "length", "batch", "quantization", "dtype", "device", "side", "policy", "budget", "kv_bits", "budget_scope", "interval",
    "decoded",
)  # fmt: skip


def write() -> list[Path]:
    """Fill the page's marked places and draw its plots; the files that were written."""
    if not PAGE.exists():
        return []
    rows, peers = _rows("speed"), _rows("peers")
    tables: dict[str, Callable[[], str]] = {
        "targets": lambda: targets(rows, peers),
        "speed": lambda: speed(row for row in rows if _plain(row) and row["length"] > SHORT),
        "batch": lambda: speed(
            row for row in rows if row["task"] != "memory" and row["model"] == "tiny"
        ),
        "bits": lambda: speed(row for row in rows if _short(row) and _ours_or_reference(row)),
        "others": lambda: speed(
            row for row in rows if _short(row) and _plain(row) and not row["kv_bits"]
        ),
        "shares": lambda: shares(rows),
        "memory": lambda: memory(row for row in rows if row["task"] == "memory"),
        "peers": lambda: speed(row for row in peers if row["task"] != "memory"),
        "peers_memory": lambda: memory(row for row in peers if row["task"] == "memory"),
        "costs": costs,
    }
    PAGE.write_text(
        MARK.sub(
            lambda mark: f"<!-- table: {mark[1]} -->\n\n{tables[mark[1]]()}\n\n<!-- end -->",
            PAGE.read_text(),
        )
    )
    return [PAGE, *_plots(rows)]


def _rows(name: str) -> list[Row]:
    """The newest row of each measurement, whichever machine, versions and number of rounds it had;
    the tables say what it had.
    """
    path = RESULTS / f"{name}.jsonl"
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return list(
        {json.dumps([row.get(field) for field in MEASUREMENT]): row for row in lines}.values()
    )


SHORT = 2000  # tokens, for what does not depend on the length: bits, and transformers' other caches


def _plain(row: Row) -> bool:
    """Timed, one prompt, weights and cache as they are computed, not of the tiny shape."""
    return (
        row["task"] != "memory"
        and row["batch"] == 1
        and row["quantization"] is None
        and row["model"] != "tiny"
    )


def _short(row: Row) -> bool:
    return row["task"] != "memory" and row["model"] == "100m" and row["length"] == SHORT


def _ours_or_reference(row: Row) -> bool:
    return row["side"] in ("namm-llm", "transformers")


def _plots(rows: list[Row]) -> list[Path]:
    """One plot for each task that was measured at more than one length."""
    found = []
    for task in ("prefill", "decode", "memory"):
        alike = [
            row
            for row in rows
            if row["task"] == task and row["batch"] == 1 and row["quantization"] is None
        ]
        drawn = [row for row in alike if row["model"] == ("tiny" if task == "memory" else "100m")]
        if len({row["length"] for row in drawn}) > 1:
            path = PAGE.parent / f"performance-{task}.png"
            draw_rows(drawn, path)
            found.append(path)
    return found


# -- tables ----------------------------------------------------------------------------------------
# -------------------------------


def targets(rows: list[Row], peers: list[Row]) -> str:
    """What was asked for, and what was measured."""
    return _table(
        ["target", "asked", "measured", "minimum-maximum", "met"],
        [
            _times(
                "prefill of 16 000 tokens, 100m, budget 0.25, against transformers in the same chunks",
                1.2,
                rows,
                "prefill",
                16_000,
            ),
            _times(
                "decoding after 32 000 tokens, 100m, budget 0.25, against transformers",
                1.5,
                rows,
                "decode",
                32_000,
            ),
            _share("policy's share of the prefill of 16 000 tokens, 100m", 0.30, rows, "100m"),
            _share("policy's share of the prefill of 16 000 tokens, 1b", 0.15, rows, "1b"),
            _flat("peak memory, 64 000 over 8 000 tokens, 2 048 tokens a head", 1.05, rows),
            *_kvpress(peers),
        ],
    )


def _times(name: str, asked: float, rows: list[Row], task: str, length: int) -> list[str]:
    row = _ours(rows, task, "100m", length)
    if row is None or row["speedup"] is None:
        return [name, f"at least {asked} times", WAITING, "", ""]
    between = f"{row['speedup_low']:.2f}-{row['speedup_high']:.2f}"
    return [
        name,
        f"at least {asked} times",
        f"{row['speedup']:.2f} times",
        between,
        _met(row["speedup"] >= asked),
    ]


def _share(name: str, asked: float, rows: list[Row], model: str) -> list[str]:
    row = _ours(rows, "prefill", model, 16_000)
    if row is None or not row["shares"]:
        return [name, f"at most {asked:.0%}", WAITING, "", ""]
    share = row["shares"]["policy"]
    return [
        f"{name} (measured: {row['model']}, {row['policy']}, {row['samples']} rounds)",
        f"at most {asked:.0%}",
        f"{share:.0%}",
        "",
        _met(share <= asked),
    ]


def _flat(name: str, asked: float, rows: list[Row]) -> list[str]:
    ours = [
        row
        for row in rows
        if row["task"] == "memory" and row["side"] == "namm-llm" and row["budget"] == "2048"
    ]
    found = {
        row["length"]: row
        for row in ours
        if (row["model"], row["policy"]) == (ours[-1]["model"], ours[-1]["policy"])
    }
    if not {8000, 64_000} <= set(found):
        return [name, f"at most {asked}", WAITING, "", ""]
    ratio = found[64_000]["peak_nbytes"] / found[8000]["peak_nbytes"]
    return [
        f"{name} (measured: {found[8000]['model']})",
        f"at most {asked}",
        f"{ratio:.3f}",
        "",
        _met(ratio <= asked),
    ]


def _kvpress(peers: list[Row]) -> list[list[str]]:
    """Ours against each press, at the longest length that both were measured at."""
    lines = []
    for press in dict.fromkeys(row["policy"] for row in peers if row["side"] == "kvpress"):
        for task, asked in (("memory", "at most 0.5"), ("prefill", "at most 1")):
            name = (
                f"{'memory' if task == 'memory' else 'seconds'} of a prefill over kvpress {press}"
            )
            theirs = [
                row
                for row in peers
                if row["task"] == task and row["side"] == "kvpress" and row["policy"] == press
            ]
            row = max(theirs, key=lambda row: row["length"], default=None)
            mine = _ours(peers, task, row["model"], row["length"]) if row is not None else None
            if row is None or mine is None:
                lines.append([name, asked, WAITING, "", ""])
                continue
            ratio = (
                _above(mine) / _above(row) if task == "memory" else mine["seconds"] / row["seconds"]
            )
            lines.append(
                [
                    f"{name}, {_number(row['length'])} tokens",
                    asked,
                    f"{ratio:.2f}",
                    "",
                    _met(ratio <= float(asked.split()[-1])),
                ]
            )
    return lines


def _ours(rows: list[Row], task: str, model: str, length: int) -> Row | None:
    found = [
        row
        for row in rows
        if row["task"] == task and row["side"] == "namm-llm" and row["length"] == length
    ]
    of_model = [row for row in found if row["model"].split()[0] == model and row["batch"] == 1]
    plain = [
        row
        for row in of_model
        if row["budget"] == "0.25" and row["quantization"] is None and not row["kv_bits"]
    ]
    preferred = [row for row in plain if row["policy"] in ("replay", "namm")]
    return max(
        preferred, key=lambda row: row["policy"] == "namm", default=None
    )  # replay is the default where a model has no NAMM


def _above(row: Row) -> int:
    """Memory that reading took, beyond weights and libraries."""
    above: int = row["peak_nbytes"] - row["before_nbytes"]
    return above


def speed(rows: Iterable[Row]) -> str:
    """Every timed row."""
    cells: dict[str, Callable[[Row], str]] = {
        "measure": lambda row: row["task"],
        "model": lambda row: row["model"],
        "tokens": lambda row: _number(row["length"]),
        "batch": lambda row: str(row["batch"]),
        "weights": lambda row: row["quantization"] or row["dtype"],
        "side": _side,
        "kept": lambda row: f"{row['kept_fraction']:.3f}",
        "cache MB": lambda row: f"{row['nbytes'] / 1e6:.1f}",
        "seconds": lambda row: f"{row['seconds']:.2f}",
        "tokens/s": lambda row: f"{row['score']:.1f}",
        "times as fast": lambda row: f"{row['speedup']:.2f}" if row["speedup"] else "",
        "quartiles": lambda row: (
            f"{row['speedup_q1']:.2f}-{row['speedup_q3']:.2f}" if row["speedup"] else ""
        ),
        "min-max": lambda row: (
            f"{row['speedup_low']:.2f}-{row['speedup_high']:.2f}" if row["speedup"] else ""
        ),
        "rounds": lambda row: str(row["samples"]),
    }
    return _rows_table(cells, rows)


def shares(rows: list[Row]) -> str:
    """Where the time of a prefill goes."""
    cells: dict[str, Callable[[Row], str]] = {
        "model": lambda row: row["model"],
        "tokens": lambda row: _number(row["length"]),
        "batch": lambda row: str(row["batch"]),
        "weights": lambda row: row["quantization"] or row["dtype"],
        "policy": _side,
        "observe": lambda row: f"{row['shares']['observe']:.1%}",
        "score": lambda row: f"{row['shares']['score']:.1%}",
        "select": lambda row: f"{row['shares']['select']:.1%}",
        "compact": lambda row: f"{row['shares']['compact']:.1%}",
        "rounds": lambda row: str(row["samples"]),
        "all of it": lambda row: f"{row['shares']['policy']:.1%}",
        "the model's forward pass": lambda row: f"{1 - row['shares']['policy']:.1%}",
    }
    return _rows_table(cells, [row for row in rows if row.get("shares")])


def memory(rows: Iterable[Row]) -> str:
    """Every row of peak memory."""
    cells: dict[str, Callable[[Row], str]] = {
        "model": lambda row: row["model"],
        "tokens": lambda row: _number(row["length"]),
        "side": _side,
        "kept": lambda row: f"{row['kept_fraction']:.3f}",
        "cache MB": lambda row: f"{row['nbytes'] / 1e6:.1f}",
        "peak MB": lambda row: f"{row['peak_nbytes'] / 1e6:.0f}",
        "of it for reading, MB": lambda row: f"{_above(row) / 1e6:.0f}",
        "seconds (one reading)": lambda row: f"{row['seconds']:.1f}",
        "of the reference's peak": lambda row: f"{row['ratio']:.2f}" if row["ratio"] else "",
    }
    return _rows_table(cells, [row for row in rows if row["peak_nbytes"] is not None])


def costs() -> str:
    """8B and 70B by arithmetic."""
    columns = [
        "model",
        "weights",
        "tokens",
        "budget",
        "full cache",
        "kept",
        "state",
        "protect_recent",
        "cache",
        "weights + full",
        "weights + cache",
    ]
    lengths, weights = (32_000, 128_000, 1_000_000), ("none", "int8", "nf4")
    lines = []
    for shape in ("8b", "70b"):
        plan = Benchmark(
            shape=shape,
            lengths=lengths,
            budgets=("0.25", "2048"),
            quantizations=weights,
            dtype="bfloat16",
        )
        for title, found in costs_of(plan):
            for label, cost in found:
                kept = (
                    cost.full_nbytes,
                    cost.kept_nbytes,
                    cost.state_nbytes,
                    cost.recent_nbytes,
                    cost.cache_nbytes,
                )
                sums = (cost.full_total_nbytes, cost.total_nbytes)
                name = f"{title.rpartition(' ')[2]} {_gb(cost.weights_nbytes)}"
                lines.append(
                    [
                        shape,
                        name,
                        _number(cost.tokens),
                        label.split()[-1],
                        *map(_gb, (*kept, *sums)),
                    ]
                )
    return (
        _table(columns, lines)
        + "\n\nGB of 10^9 bytes. With full, with cache: of weights and that cache."
    )


def _rows_table(cells: dict[str, Callable[[Row], str]], rows: Iterable[Row]) -> str:
    shown = list(rows)
    made = sorted({f"{row['date']}: {row['machine']}, torch {row['torch']}" for row in shown})
    table = _table(list(cells), [[cell(row) for cell in cells.values()] for row in shown])
    return "\n\n".join([table, f"Measured {'; '.join(made)}."] if shown else [table])


def _side(row: Row) -> str:
    bits = f"{row['kv_bits']}-bit" if row["kv_bits"] else None
    return " ".join(
        part
        for part in (
            row["side"],
            row["policy"] if row["policy"] != "full" else None,
            row["budget"],
            bits,
        )
        if part
    )


def _met(met: bool) -> str:
    return "yes" if met else "no"


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f}" if nbytes >= 1e8 else f"{nbytes / 1e9:.3f}"


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def _table(columns: list[str], lines: list[list[Any]]) -> str:
    if not lines:
        return f"{WAITING.capitalize()}."
    return "\n".join(
        f"| {' | '.join(map(str, line))} |" for line in [columns, ["---"] * len(columns), *lines]
    )
