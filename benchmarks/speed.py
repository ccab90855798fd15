"""Prefill and decoding against transformers' full cache: the same model, tokens and chunks, in turn, in one process.

Figures are ratios of seconds, ours over theirs; below 1 we are faster. Median, smallest and largest of the paired runs.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from statistics import median

import torch
from transformers import PreTrainedModel

from benchmarks.models import random_ids, random_model, random_namm
from benchmarks.reading import MakeCache, decode, managed_cache, read, transformers_cache
from benchmarks.rows import Row
from namm_llm import ManagedCache

WARM_UP = 1024
Timed = Callable[[], float]


def compare(
    shape: str, dtype: str, *, policy: str, budget: float, compete: str, prefill: int, context: int, tokens: int, runs: int
) -> list[Row]:
    """Rows for a prefill of `prefill` tokens and for decoding `tokens` after reading `context`, or none where the length is 0."""
    model = random_model(shape, getattr(torch, dtype))
    namm = random_namm() if policy == "namm" else None
    makers = (managed_cache(model, policy=policy, budget=budget, compete=compete, namm=namm), transformers_cache(model))
    common = {"shape": shape, "dtype": dtype, "policy": policy, "budget": budget, "compete": compete, "runs": runs}
    rows = []
    for make in makers:
        read(model, random_ids(model, WARM_UP), make())
    if prefill:
        timed = tuple(_prefill(model, make, prefill) for make in makers)
        rows.append({"measure": "prefill", **common, "tokens": prefill, **_pairs(timed, runs)})
    if context:
        timed = tuple(_decode(model, make, context, tokens) for make in makers)
        rows.append({"measure": "decode", **common, "tokens": context, "decoded": tokens, **_pairs(timed, runs)})
    return rows


def _prefill(model: PreTrainedModel, make: MakeCache, length: int) -> Timed:
    ids = random_ids(model, length)
    return lambda: read(model, ids, make())[0]


def _decode(model: PreTrainedModel, make: MakeCache, length: int, tokens: int) -> Timed:
    """Reads once; each run decodes from a copy."""
    cache = make()
    _, logits = read(model, random_ids(model, length), cache)

    def run() -> float:
        own = cache.fork() if isinstance(cache, ManagedCache) else deepcopy(cache)
        make()  # switches the model to the attention that this cache needs
        return decode(model, logits, own, tokens)

    return run


def _pairs(timed: tuple[Timed, ...], runs: int) -> Row:
    """Seconds of both in turn, `runs` times."""
    pairs = [[run() for run in timed] for _ in range(runs)]
    ratios = [ours / theirs for ours, theirs in pairs]
    return {
        "ratio": median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "seconds": median(ours for ours, _ in pairs),
        "full_seconds": median(theirs for _, theirs in pairs),
    }
