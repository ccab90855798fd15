"""A layer whose queries see a bounded stretch of tokens: a sliding window, or chunks of fixed size.

It holds what its next token can see, whatever the policy, so it gives what transformers' own gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from namm_llm.attention.sliding import bounded_attention
from namm_llm.cache.batch import BatchLayer
from namm_llm.config import CacheConfig


@dataclass
class SlidingSequence:
    """The tokens of one sequence in such a layer. Rows that it holds are never written to: forks
    share them.
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
    buffers: tuple[Tensor, Tensor] | None = None
    """What `keys` and `values` are views of, with empty rows behind them for this sequence alone;
    None if there are none.
    """

    def fork(self) -> SlidingSequence:
        """The same tokens, shared."""
        return replace(self, buffers=None)

    def to(self, device: torch.device) -> SlidingSequence:
        """The same on another device."""
        keys, values = self.keys.to(device), self.values.to(device)
        return replace(self, keys=keys, values=values, buffers=None)

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
            self.seen, self.buffers = self.seen + new, None
        return iter(())

    @property
    def is_due(self) -> bool:
        """Never: no policy evicts here."""
        return False

    @property
    def room(self) -> int:
        """Tokens that `reserve` can make room for: one, for each sees other rows."""
        return 0 if self.is_chunked else 1

    def is_stored_as(self, dtype: torch.dtype) -> bool:
        """Whether kernels on a CPU can read the tokens, as numbers of this type."""
        return self.keys.dtype is dtype and self.keys.device.type == "cpu"

    def reserve(self, tokens: int, heads: int) -> tuple[int, ...]:
        """`sequence_t` of native/kernels/attend.h: where a kernel finds the tokens, and where it
        stores a new one.
        """
        groups, held, size = self.keys.shape
        first = self.keys.storage_offset() // size
        if self.buffers is None or first + held + tokens > self.buffers[0].shape[1]:
            rows = held + tokens + self.size // 4
            self.buffers = (
                self.keys.new_empty(groups, rows, size),
                self.keys.new_empty(groups, rows, size),
            )
            for buffer, column in zip(self.buffers, (self.keys, self.values), strict=True):
                buffer[:, :held] = column
            first, self.keys, self.values = 0, *(buffer[:, :held] for buffer in self.buffers)
        keys, values = self.buffers
        window = keys.data_ptr(), values.data_ptr(), keys.shape[1], first, first + held
        return (0, 0, 0, _no_tokens(groups).data_ptr(), *window, 0, 0, 0, 0, 0)

    def advance(self, tokens: int) -> None:
        """Count a token that a kernel has stored."""
        assert self.buffers is not None
        _, held, size = self.keys.shape
        stop = self.keys.storage_offset() // size + held + tokens
        start = stop - min(held + tokens, self.size - 1)
        self.keys, self.values = (buffer[:, start:stop] for buffer in self.buffers)
        self.seen += tokens

    def _newest(self, column: Tensor) -> Tensor:
        """The rows that the next token can see; in memory of their own where most are left out."""
        kept = column[:, max(column.shape[1] - self.size + 1, 0) :]
        return kept.clone() if column.shape[1] > self.size else kept

    def can_drop(self, count: int) -> bool:
        """Whether the newest tokens can be taken back: while none has left."""
        return count <= self.keys.shape[1] and self.seen == self.keys.shape[1]

    def drop_last(self, count: int) -> None:
        """Take back the newest tokens."""
        self.seen, self.buffers = self.seen - count, None
        self.keys, self.values = self.keys[:, : self.seen], self.values[:, : self.seen]

    def stored(self) -> int:
        """Tokens held, summed over the KV heads."""
        return self.keys.shape[0] * self.keys.shape[1]

    def tensors(self) -> list[Tensor]:
        """Every tensor that is held."""
        return [self.keys, self.values]


@lru_cache
def _no_tokens(groups: int) -> Tensor:
    """`RaggedTokens.starts` of heads without retained tokens."""
    return torch.zeros(groups + 1, dtype=torch.int64)


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
