"""Seconds spent in the stages of an update, for whoever measures; outside `measured` a stage costs
one look at a list.

The stages: `probe` (probes are run through the model), `observe` (the policy looks at attention and
updates its state), `score`, `select` (who stays), `compact` (tokens are moved). They never nest, so
their sum is what the policy costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

STAGES = ("probe", "observe", "score", "select", "compact")

_open: list[
    tuple[dict[str, float], Callable[[], float]]
] = []  # the model's worker is another thread: no context variable reaches it


@contextmanager
def measured(clock: Callable[[], float] = time.perf_counter) -> Iterator[dict[str, float]]:
    """Seconds of each stage, summed over all updates in any thread until the block ends. clock: any
    that counts seconds.
    """
    entry = (dict.fromkeys(STAGES, 0.0), clock)
    _open.append(entry)
    try:
        yield entry[0]
    finally:
        _open[:] = [other for other in _open if other is not entry]


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Counts the block as this stage."""
    if not _open:
        yield
        return
    entries = list(_open)
    _wait()
    started = [clock() for _, clock in entries]
    try:
        yield
    finally:
        _wait()
        for (totals, clock), start in zip(entries, started, strict=True):
            totals[name] += clock() - start


def _wait() -> None:
    """A GPU works on after the call has come back."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
