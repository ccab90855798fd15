"""The statistics of a NAMM's features, estimated again for another model, so that a NAMM made on a
small model serves a large one.

Attention is all that a NAMM sees, and every model spreads it a little differently: the means and
variances that standardise the features are the model's, the rest of the NAMM is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_llm.attention.observation import Observation
from namm_llm.cache import ManagedCache
from namm_llm.config import INTERVAL, make_cache_config
from namm_llm.errors import UsageError
from namm_llm.namm import Namm
from namm_llm.policies import NammPolicy
from namm_llm.tokens import HeadTokens


@dataclass
class Moments:
    """Running mean and biased variance of rows, in float64: count, sum `[W]` and sum of squares
    `[W]`.
    """

    count: int = 0
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, rows: Tensor) -> None:
        """Rows `[N, W]`."""
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


@dataclass(frozen=True)
class _Recorder(NammPolicy):
    """Sees what its NAMM would see, counts it, and keeps everything."""

    moments: Moments = field(default_factory=Moments, compare=False, repr=False)

    @property
    def scores_layer_at_once(self) -> bool:
        return False  # each head is noted by itself

    def score(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        self.moments.add(self.namm.scaled(segment.state))
        return torch.zeros(len(segment), device=segment.state.device)


@torch.no_grad()
def calibrate(
    model: PreTrainedModel,
    namm: Namm,
    documents: Sequence[Sequence[int]],
    *,
    interval: int = INTERVAL,
    probes: Sequence[Sequence[int]] = (),
    on_done: Callable[[int], None] = lambda done: None,
) -> Namm:
    """The same NAMM with the means and variances that its features have when `model` reads these
    documents (token ids each).

    probes: token ids of each, for a NAMM that was made for them.

    Nothing is evicted while it reads, as in the published run: every stored token counts once at
    every update. UsageError if no document is long enough for an update.
    """
    if not any(len(document) >= interval for document in documents):
        longest = max(map(len, documents), default=0)
        raise UsageError(
            f"calibrating needs a text of at least {interval} tokens (one update interval), the longest has {longest}"
        )
    moments, ids = Moments(), tuple(map(tuple, probes))
    device = cast(torch.nn.Embedding, model.get_input_embeddings()).weight.device
    for number, document in enumerate(documents, 1):
        cache = ManagedCache.for_model(
            model,
            make_cache_config(_Recorder(namm, probes=ids, moments=moments), interval=interval),
        )
        for piece in torch.split(torch.tensor([list(document)], device=device), interval, 1):
            model(piece, past_key_values=cache, logits_to_keep=1)
        on_done(number)
    return namm.with_statistics(moments.mean, moments.variance)
