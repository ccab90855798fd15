"""What was asked of speed and memory, and what was measured."""

from __future__ import annotations

from namm_lab.reports.pages import WAITING, markdown, number
from namm_lab.rows import Row

PREFILL = "prefill of 16 000 tokens, 100m, budget 0.25, against transformers in the same chunks"
DECODE = "decoding after 32 000 tokens, 100m, budget 0.25, against transformers"


def targets(rows: list[Row], peers: list[Row]) -> str:
    """What was asked for, and what was measured."""
    return markdown(
        ["target", "asked", "measured", "minimum-maximum", "met"],
        [
            _times(PREFILL, 1.2, rows, "prefill", 16_000),
            _times(DECODE, 1.5, rows, "decode", 32_000),
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
        if row["task"] == "memory" and row["contender"] == "namm-llm" and row["budget"] == "2048"
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
    for press in dict.fromkeys(row["policy"] for row in peers if row["contender"] == "kvpress"):
        for task, asked in (("memory", "at most 0.5"), ("prefill", "at most 1")):
            name = (
                f"{'memory' if task == 'memory' else 'seconds'} of a prefill over kvpress {press}"
            )
            theirs = [
                row
                for row in peers
                if row["task"] == task and row["contender"] == "kvpress" and row["policy"] == press
            ]
            row = max(theirs, key=lambda row: row["length"], default=None)
            mine = _ours(peers, task, row["model"], row["length"]) if row is not None else None
            if row is None or mine is None:
                lines.append([name, asked, WAITING, "", ""])
                continue
            ratio = (
                memory_of_reading(mine) / memory_of_reading(row)
                if task == "memory"
                else mine["seconds"] / row["seconds"]
            )
            lines.append(
                [
                    f"{name}, {number(row['length'])} tokens",
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
        if row["task"] == task and row["contender"] == "namm-llm" and row["length"] == length
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


def memory_of_reading(row: Row) -> int:
    """Memory that reading took, beyond weights and libraries."""
    above: int = row["peak_nbytes"] - row["before_nbytes"]
    return above


def _met(met: bool) -> str:
    return "yes" if met else "no"
