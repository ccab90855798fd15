"""The statistics of a NAMM's features, estimated again for another model, so that a NAMM made on a
small model serves a large one.

Attention is all that a NAMM sees, and every model spreads it a little differently: the means and
variances that standardise the features are the model's, the rest of the NAMM is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_lab.train.collection import read_with
from namm_llm import Namm, UsageError, make_cache_config
from namm_llm.cache import EvictionEvent
from namm_llm.config import INTERVAL


@dataclass
class Moments:
    """Running mean and biased variance of rows, in float64."""

    count: int = 0
    """Rows so far."""
    total: Tensor | float = 0.0
    """Their sum `[W]`."""
    squares: Tensor | float = 0.0
    """The sum `[W]` of their squares."""

    def add(self, rows: Tensor) -> None:
        """Count rows `[N, W]`."""
        rows = rows.double()
        self.count += len(rows)
        self.total = self.total + rows.sum(0).cpu()
        self.squares = self.squares + (rows**2).sum(0).cpu()

    @property
    def mean(self) -> Tensor:
        """`[W]`."""
        return torch.as_tensor(self.total) / self.count

    @property
    def variance(self) -> Tensor:
        """`[W]`."""
        return (torch.as_tensor(self.squares) / self.count - self.mean**2).clamp_min(0.0)


@torch.no_grad()
def calibrate(
    model: PreTrainedModel,
    namm: Namm,
    documents: Sequence[Sequence[int]],
    *,
    interval: int = INTERVAL,
    on_done: Callable[[int], None] = lambda done: None,
) -> Namm:
    """The same NAMM with the means and variances that its features have when `model` reads these
    documents (token ids each).

    Nothing is evicted while it reads, as in the published run: every stored token counts once at
    every eviction step. on_done: told the number of documents read. Raises UsageError if no
    document is long enough for an eviction step.
    """
    if not any(len(document) >= interval for document in documents):
        longest = max(map(len, documents), default=0)
        raise UsageError(
            f"calibrating needs a text of at least {interval} tokens (one interval), the longest "
            f"has {longest}"
        )
    moments = Moments()

    def note(event: EvictionEvent) -> None:
        for tokens in event.heads:
            moments.add(namm.settings.scaled(tokens.state))

    # parameters of 0 give every token the score 0, which the published rule keeps
    keeping = make_cache_config("namm", namm=zeroed(namm), interval=interval)
    for number, document in enumerate(documents, 1):
        read_with(model, document, keeping, note)
        on_done(number)
    return namm.with_statistics(moments.mean, moments.variance)


def zeroed(namm: Namm) -> Namm:
    """The same form and statistics with parameters of 0, whose scores are 0."""
    return replace(namm, theta=torch.zeros_like(namm.theta))
