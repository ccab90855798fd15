"""A layer whose queries see a bounded stretch of tokens: a sliding window, or chunks of fixed size.

It holds what its next token can see, whatever the policy, so it gives what transformers' own gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from namm_llm.attention.sliding import bounded_attention
from namm_llm.cache.batch import BatchLayer
from namm_llm.config import CacheConfig


@dataclass
class SlidingSequence:
    """The tokens of one sequence in such a layer. Its tensors are never written to: forks share
    them.
    """

    config: CacheConfig
    """The settings of the sequence in the layers that evict."""
    scale: float
    """Factor of the attention logits."""
    size: int
    """Tokens that a query sees at most, its own included."""
    is_chunked: bool
    """Whether a query sees its own chunk of `size` tokens instead of the newest `size`."""
    keys: Tensor
    """`[G, N, D]` of the newest tokens, at most `size` - 1."""
    values: Tensor
    """`[G, N, D]`."""
    seen: int = 0
    """Tokens that went through."""

    def fork(self) -> SlidingSequence:
        """The same tokens, shared."""
        return replace(self)

    def to(self, device: torch.device) -> SlidingSequence:
        """The same on another device."""
        return replace(self, keys=self.keys.to(device), values=self.values.to(device))

    @property
    def num_heads(self) -> int:
        """KV heads."""
        return self.keys.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self.keys.device

    def extend(self, out: Tensor, query: Tensor, keys: Tensor, values: Tensor) -> Iterator[None]:
        """Append keys and values `[G, T, D]` and attend with queries `[H, T, D]`, into `out` `[H,
        T, D]`. No eviction step is ever due.
        """
        held, new = self.keys.shape[1], query.shape[1]
        if new:
            keys, values = torch.cat([self.keys, keys], 1), torch.cat([self.values, values], 1)
            at = torch.arange(self.seen, self.seen + new)
            first = at - at % self.size if self.is_chunked else at - self.size + 1
            starts = (first - self.seen + held).clamp_min(0)
            out[:] = bounded_attention(query, keys, values, scale=self.scale, starts=starts)
            self.keys, self.values = self._newest(keys), self._newest(values)
            self.seen += new
        return iter(())

    def _newest(self, column: Tensor) -> Tensor:
        """The rows that the next token can see; in memory of their own where most are left out."""
        kept = column[:, max(column.shape[1] - self.size + 1, 0) :]
        return kept.clone() if column.shape[1] > self.size else kept

    def can_drop(self, count: int) -> bool:
        """Whether the newest tokens can be taken back: while none has left."""
        return count <= self.keys.shape[1] and self.seen == self.keys.shape[1]

    def drop_last(self, count: int) -> None:
        """Take back the newest tokens."""
        self.seen -= count
        self.keys, self.values = self.keys[:, : self.seen], self.values[:, : self.seen]

    def stored(self) -> int:
        """Tokens held, summed over the KV heads."""
        return self.keys.shape[0] * self.keys.shape[1]

    def tensors(self) -> list[Tensor]:
        """Every tensor that is held."""
        return [self.keys, self.values]


class SlidingLayer(BatchLayer):  # type: ignore[no-untyped-call]
    """One such layer for every sequence of the batch."""

    is_sliding = True
    sequences: list[SlidingSequence]

    def __init__(self, configs: Sequence[CacheConfig], size: int, *, is_chunked: bool) -> None:
        """size, is_chunked: as of `SlidingSequence`."""
        super().__init__(configs)
        self.size = size
        self.is_chunked = is_chunked

    def new_sequence(self, config: CacheConfig, keys: Tensor, scale: float) -> SlidingSequence:
        """See `BatchLayer`."""
        empty = keys.new_empty(keys.shape[0], 0, keys.shape[-1])
        return SlidingSequence(config, scale, self.size, self.is_chunked, empty, empty)
