"""Prefill and decoding against transformers' full cache: the same model, tokens and chunks, in turn, in one process.

Figures are ratios of seconds, ours over theirs; below 1 we are faster. Median, smallest and largest of the paired runs.
"""

from __future__ import annotations

from statistics import median

import torch

from benchmarks.models import random_ids, random_model, random_namm
from benchmarks.reading import decode, managed_cache, read, transformers_cache
from benchmarks.rows import Row


def compare(
    shape: str, dtype: str, *, policy: str, budget: float, compete: str, prefill: int, context: int, tokens: int, runs: int
) -> list[Row]:
    """Rows for a prefill of `prefill` tokens and for decoding `tokens` after reading `context`, or none where the length is 0."""
    model = random_model(shape, getattr(torch, dtype))
    namm = random_namm() if policy == "namm" else None
    makers = (managed_cache(model, policy=policy, budget=budget, compete=compete, namm=namm), transformers_cache(model))
    rows = []
    for measure, length in (("prefill", prefill), ("decode", context)):
        if not length:
            continue
        ids = random_ids(model, length)
        pairs = []
        for run in range(runs + (measure == "prefill")):
            seconds = []
            for make in makers:
                cache = make()
                took, logits = read(model, ids if run or measure == "decode" else ids[:, :1024], cache)
                seconds.append(took if measure == "prefill" else decode(model, logits, cache, tokens))
            pairs.append((seconds[0], seconds[1]))
        pairs = pairs[measure == "prefill" :]  # the first is for warming up
        rows.append(
            {
                "measure": measure,
                "shape": shape,
                "dtype": dtype,
                "policy": policy,
                "budget": budget,
                "compete": compete,
                "tokens": length,
                "decoded": tokens if measure == "decode" else 0,
                "runs": runs,
                "ratio": median(ours / theirs for ours, theirs in pairs),
                "ratios": [round(ours / theirs, 3) for ours, theirs in pairs],
                "seconds": median(ours for ours, _ in pairs),
                "full_seconds": median(theirs for _, theirs in pairs),
            }
        )
    return rows
