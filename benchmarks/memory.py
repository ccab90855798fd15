"""Bytes of the cache against transformers' full cache, and the peak memory of a process that reads a long text."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.models import random_ids, random_model, random_namm
from benchmarks.reading import managed_cache, read
from benchmarks.rows import Row


def cache_bytes(shape: str, dtype: str, policy: str, budget: float | int, length: int) -> Row:
    """What the cache holds after reading `length` tokens, everything counted, over the bytes of all keys and values."""
    model = random_model(shape, getattr(torch, dtype))
    cache = managed_cache(model, policy=policy, budget=budget, namm=random_namm() if policy == "namm" else None)()
    read(model, random_ids(model, length), cache)
    cache.settle()
    stats = cache.stats()
    return {
        "measure": "cache_bytes",
        "shape": shape,
        "dtype": dtype,
        "policy": policy,
        "budget": budget,
        "tokens": length,
        "kept_fraction": stats.kept_fraction,
        "nbytes": stats.nbytes,
        "full_nbytes": stats.full_nbytes,
        "ratio": stats.nbytes / stats.full_nbytes,
    }


def peak_process_bytes(shape: str, dtype: str, policy: str, budget: int, lengths: tuple[int, ...]) -> list[Row]:
    """Peak memory of one fresh process for each length."""
    rows: list[Row] = []
    for length in lengths:
        command = [sys.executable, "-m", "benchmarks.memory", shape, dtype, policy, str(budget), str(length)]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(
            {"measure": "peak_process_bytes", "shape": shape, "dtype": dtype, "policy": policy, "budget": budget, "tokens": length}
            | {"nbytes": peak, "ratio": peak / rows[0]["nbytes"] if rows else 1.0}
        )
    return rows


def _peak(shape: str, dtype: str, policy: str, budget: str, length: str) -> int:
    cache_bytes(shape, dtype, policy, int(budget), int(length))
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # ru_maxrss begins with what the parent process had at the fork; VmHWM is this program's own
    return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]


if __name__ == "__main__":
    print(_peak(*sys.argv[1:]))
