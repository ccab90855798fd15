"""One layer in buffers that stay where they are between two eviction steps.

Retained tokens are read where they lie, also those that forks share. Window tokens and the queries
that policies look back on have buffers for a whole interval from the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from namm_llm.attention.grouped import varlen_attention
from namm_llm.cache.layer import ManagedLayer
from namm_llm.cache.sequence import LayerSequence
from namm_llm.cache.transformers import PendingKeys, PendingLayer
from namm_llm.cache.window import GrowingBuffer
from namm_llm.engine.graph.counters import StepCounters
from namm_llm.tokens import VarlenTokens


class StaticSequence:
    """One sequence in one layer.

    layer: of the sequence's own cache, which holds no other one.
    """

    def __init__(self, layer: ManagedLayer, counters: StepCounters) -> None:
        self._layer = layer
        self._sequence: LayerSequence = layer.sequences[0]
        self._counters = counters
        retained, interval = self._sequence.retained, self._sequence.config.interval
        groups, device = len(retained.lengths), retained.keys.device
        sizes = (retained.keys.shape[-1], retained.values.shape[-1])
        keys, values = (
            torch.empty(groups, interval, size, dtype=retained.dtype, device=device)
            for size in sizes
        )
        starts = torch.arange(groups, dtype=torch.int32, device=device) * interval
        self._buffers = keys, values
        self._window = VarlenTokens(
            keys.flatten(0, 1), values.flatten(0, 1), starts, counters.lengths[:groups], interval
        )
        self._queries: list[Tensor] = []
        self.load()

    def extend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Store one token, key and value `[G, 1, D]`, and attend with its queries `[H, 1, D]`:
        output `[H, 1, D]`.
        """
        counters, sequence = self._counters, self._sequence
        for buffer, new in zip(self._buffers, (keys, values), strict=True):
            buffer.index_copy_(1, counters.key_row, new)
        out, lse = varlen_attention(query, (*self._retained, self._window), scale=sequence.scale)
        if sequence.config.policy.observes:
            self._make_buffers(query, lse)
            for buffer, new in zip(self._queries, (query, lse), strict=True):
                buffer.index_copy_(1, counters.query_row, new)
        return out

    def load(self) -> None:
        """Move the window of the sequence, and the queries it carries, into the buffers."""
        sequence = self._sequence
        retained = sequence.retained
        both = torch.tensor([retained.lengths, retained.lengths], dtype=torch.int32)
        both[0] = both[1].cumsum(0) - both[1]
        starts, lengths = both.to(retained.keys.device)
        whole = VarlenTokens(
            retained.keys, retained.values, starts, lengths, retained.longest, retained.scales
        )
        self._retained = (whole,) if retained.longest else ()
        for buffer, column in zip(self._buffers, sequence.window.columns(), strict=False):
            buffer[:, : column.shape[1]] = column
        columns = sequence.queries.columns()  # none, if the policy carries nothing on
        if columns:
            self._make_buffers(*columns)
        for buffer, column in zip(self._queries, columns, strict=False):
            buffer[:, : column.shape[1]] = column

    def _make_buffers(self, *like: Tensor) -> None:
        """Buffers for queries and log-sum-exps `[H, ...]`: a whole interval, and the most that is
        carried over an eviction step.
        """
        if self._queries:
            return
        policy, interval = self._sequence.config.policy, self._sequence.config.interval
        room = interval + max(policy.num_carried_queries(seen) for seen in range(interval))
        self._queries = [
            column.new_empty(column.shape[0], room, *column.shape[2:]) for column in like
        ]

    def store_back(self) -> None:
        """Let the sequence see all that is in the buffers."""
        counters, sequence = self._counters, self._sequence
        sequence.seen = counters.seen
        self._layer.columns = counters.seen
        sequence.window = _first(self._buffers, counters.window)
        sequence.queries = _first(self._queries, counters.queries)

    def leave(self) -> None:
        """Give the sequence storage of its own again."""
        sequence = self._sequence
        sequence.window, sequence.queries = sequence.window.copy(), sequence.queries.copy()


def _first(buffers: Sequence[Tensor], count: int) -> GrowingBuffer:
    return GrowingBuffer(*(buffer[:, :count] for buffer in buffers)) if count else GrowingBuffer()


class StaticLayer(PendingLayer):
    """One layer of all sequences, as transformers sees it.

    seen: tokens of the longest sequence.
    """

    def __init__(self, sequences: Sequence[StaticSequence], seen: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sequences = tuple(sequences)
        self._seen = seen
        self.is_initialized = True

    def extend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Store one token of each sequence, keys and values `[B, G, 1, D]`; queries `[B, H, 1, D]`
        to output `[B, 1, H, D]`.
        """
        parts = zip(self._sequences, query, keys, values, strict=True)
        return torch.stack([sequence.extend(*new) for sequence, *new in parts]).transpose(1, 2)

    def update(  # type: ignore[override]  # as `ManagedLayer.update`: attention gets our handle
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[PendingKeys, Tensor]:
        """Keys and values `[B, G, 1, D]` of the new tokens."""
        return PendingKeys(key_states, value_states, self._store), value_states

    def _store(self, query: Tensor, keys: Tensor, values: Tensor, *given: object) -> Tensor:
        """See `PendingKeys.store`; decoded tokens have no padding, and the decoder's positions."""
        return self.extend(query, keys, values)

    def get_seq_length(self) -> int:
        """Tokens that went through; positions are given, so nothing depends on it."""
        return self._seen
