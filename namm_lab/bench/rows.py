"""Measurements as flat JSON objects, one a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from namm_lab.bench.contenders import Contender, ManagedContender, Numbers
from namm_lab.bench.model import name_of
from namm_lab.bench.plan import Benchmark, Cell
from namm_lab.bench.rounds import Timed, shares, spread
from namm_lab.bench.text import title_of
from namm_lab.rows import Row, machine
from namm_llm import __version__

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, from which rows name their files."""
MEASUREMENT = (
    "model", "task", "length", "batch", "quantization", "dtype", "device", "contender", "policy",
    "budget", "kv_bits", "budget_scope", "interval", "decoded", "text",
)  # fmt: skip
"""What is measured, whoever measures it where."""
KEY = (*MEASUREMENT, "version", "namm", "samples", "machine", "torch", "transformers")
"""Two rows that agree in these fields are the same measurement."""


def key_of(plan: Benchmark, cell: Cell, task: str, contender: Contender, dtype: str) -> Row:
    """What a row measures, without the results."""
    config = contender.config if isinstance(contender, ManagedContender) else None
    device = plan.torch_device()
    return {
        "version": __version__,
        "model": name_of(plan),
        "task": task,
        "length": cell.length,
        "batch": cell.batch,
        "quantization": cell.quantization,
        "dtype": dtype,
        "device": device.type,
        "contender": contender.name,
        "policy": contender.policy,
        "budget": contender.budget,
        "kv_bits": config.kv_bits if config is not None else None,
        "budget_scope": config.budget_scope if config and config.policy.evicts else None,
        "interval": plan.interval,
        "namm": _named(plan.namm) if contender.policy == "namm" else None,
        "decoded": plan.decoded if task == "decode" else None,
        "text": title_of(cell.text) if cell.text is not None else None,
        "samples": {"memory": 1, "needles": plan.needles}.get(task, plan.runs),
        "peer": contender.peer,
        **machine(device),
    }


def _named(path: str | None) -> str | None:
    # a row is the same measurement wherever the checkout lies
    if path is None or not Path(path).resolve().is_relative_to(ROOT):
        return path
    return Path(path).resolve().relative_to(ROOT).as_posix()


def timed_row(key: Row, timed: Timed, reference: Timed | None) -> Row:
    """score: tokens a second, of all prompts together; full_score: the reference's. speedup: the
    reference's seconds over the contender's, round by round, with its spread; above 1 the contender
    is faster. shares: of the stages of an update, and of all of them, in the seconds.
    """
    tokens = key["batch"] * (key["decoded"] if key["task"] == "decode" else key["length"])
    seconds = spread(timed.seconds)
    full = tokens / spread(reference.seconds)["median"] if reference is not None else None
    speedups = (
        [theirs / ours for ours, theirs in zip(timed.seconds, reference.seconds, strict=True)]
        if reference is not None
        else []
    )
    found = spread(speedups) if speedups else dict.fromkeys(("median", "low", "q1", "q3", "high"))
    return {
        **key,
        "score": tokens / seconds["median"],
        "full_score": full,
        **timed.numbers,
        "seconds": seconds["median"],
        "seconds_spread": _rounded(list(seconds.values())[1:]),
        "rounds": _rounded(timed.seconds),
        "first_token_seconds": seconds["median"] if key["task"] == "prefill" else None,
        "speedup": found["median"],
        "speedup_low": found["low"],
        "speedup_q1": found["q1"],
        "speedup_q3": found["q3"],
        "speedup_high": found["high"],
        "speedups": _rounded(speedups),
        "shares": {name: round(share, 4) for name, share in shares(timed).items()},
    }


def memory_row(key: Row, found: Numbers, reference: Row | None) -> Row:
    """score, peak_nbytes: most memory in use while it was read. before_nbytes: in use before it,
    weights and libraries. process_nbytes: most in the whole life of the process, loading included.
    ratio: of the peaks, to the reference's.
    """
    peak = found["peak_nbytes"]
    full = reference["peak_nbytes"] if reference is not None else None
    return {
        **key,
        "score": peak,
        "full_score": full,
        **found,
        "ratio": peak / full if full and peak else None,
    }


def needles_row(key: Row, answers: Sequence[bool], numbers: Numbers) -> Row:
    """score: share of the needles that were answered. answers: 1 for each that was."""
    return {
        **key,
        "score": sum(answers) / len(answers),
        "full_score": None,
        **numbers,
        "answers": [int(right) for right in answers],
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]
