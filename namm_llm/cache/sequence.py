"""The cache of one layer for one sequence: retained tokens and the window.

`extend` takes new tokens in pieces that end where an eviction step is due, so that the result does
not depend on how the caller cuts its chunks. The step itself is in `update.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from namm_llm.attention.grouped import grouped_attention
from namm_llm.attention.rope import Rotation
from namm_llm.cache.positions import compact_positions
from namm_llm.cache.window import GrowingBuffer
from namm_llm.config import CacheConfig
from namm_llm.errors import CacheError
from namm_llm.policies.budget import TokenCost
from namm_llm.tokens import RaggedTokens

ONE_BY_ONE = 15
"""So few new tokens attend one after the other: rounded as single steps round, to the last bit."""


@dataclass
class LayerSequence:
    """The tokens of one sequence in one layer."""

    config: CacheConfig
    """Its own settings; rows of a batch may differ."""
    retained: RaggedTokens
    """Tokens that an eviction step has kept; shared by forks."""
    scale: float
    """Factor of the attention logits."""
    window: GrowingBuffer = field(default_factory=GrowingBuffer)
    """Keys and values `[G, C, D]` since the last eviction step."""
    queries: GrowingBuffer = field(default_factory=GrowingBuffer)
    """Queries `[H, Q, D]` after RoPE and log-sum-exp `[H, Q]`, only if the policy observes."""
    seen: int = 0
    """Tokens that went through."""
    compacted_at: int = 0
    """`seen` at the last eviction step."""
    eviction_steps: int = 0
    """How many there were."""
    window_start: int | None = None
    """Where positions are compact: that of the window's first token. None: all are original."""

    def fork(self) -> LayerSequence:
        """The same tokens; the retained ones are shared, the window is copied."""
        return replace(self, window=self.window.copy(), queries=self.queries.copy())

    def to(self, device: torch.device) -> LayerSequence:
        """The same on another device, for instance after loading from a file."""
        return replace(
            self,
            retained=self.retained.to(device),
            window=self.window.to(device),
            queries=self.queries.to(device),
        )

    @property
    def num_heads(self) -> int:
        """KV heads."""
        return len(self.retained.lengths)

    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self.retained.keys.device

    @property
    def is_due(self) -> bool:
        """Whether an eviction step is due: at every multiple of the interval."""
        return self.window.count > 0 and self.seen % self.config.interval == 0

    @property
    def next_position(self) -> int:
        """Where attention sees the next token."""
        if self.window_start is None:
            return self.seen
        return self.window_start + self.seen - self.compacted_at

    def key_positions(self) -> list[Tensor]:
        """Where attention sees the tokens of each head, int `[N_g]`, the window's last."""
        start = self.compacted_at if self.window_start is None else self.window_start
        device = self.retained.keys.device
        window = torch.arange(start, start + self.window.count, device=device)
        if self.window_start is None:
            retained = [head.positions for head in self.retained.heads()]
        else:
            retained = [
                compact_positions(head.positions, self.compacted_at, start)
                for head in self.retained.heads()
            ]
        return [torch.cat([positions, window]) for positions in retained]

    def extend(
        self,
        out: Tensor,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        positions: Sequence[int] = (),
        rotation: Rotation | None = None,
    ) -> Iterator[None]:
        """Append keys and values `[G, T, D]` and attend with queries `[H, T, D]`, into `out` `[H,
        T, D]`. Yields wherever an eviction step is due, for the caller to run it.

        positions: `[T]`, at which the model rotated them, and the model's rotation; needed only
        where positions are compact. Raises CacheError if a step that was due has not been run.
        """
        start, interval = 0, self.config.interval
        while start < query.shape[1]:
            if self.seen - self.compacted_at >= interval:
                raise CacheError(
                    "a budget shared by the whole model needs every layer at the same token: read "
                    f"in chunks that end at multiples of {interval} "
                    f"(generation_config.prefill_chunk_size={interval}), one sequence at a time."
                )
            left = interval - self.seen % interval if query.shape[1] > ONE_BY_ONE else 1
            piece = slice(start, min(query.shape[1], start + left))
            new_query, new_keys = query[:, piece], keys[:, piece]
            if self.window_start is not None and rotation is not None:
                # 0 for a caller who asked the cache for the position
                shift = self.next_position - positions[start]
                new_query, new_keys = (
                    rotation.turn(rows, shift).to(rows.dtype) if shift else rows
                    for rows in (new_query, new_keys)
                )
            out[:, piece] = self._attend(new_query, new_keys, values[:, piece])
            start = piece.stop
            if self.is_due:
                yield

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        self.window.append(keys, values, limit=self.config.interval)
        out, lse = grouped_attention(query, self.retained, *self.window.columns(), scale=self.scale)
        if self.config.policy.observes:
            carried = self.config.policy.num_carried_queries(self.compacted_at)
            self.queries.append(query, lse, limit=self.config.interval + carried)
        self.seen += query.shape[1]
        return out

    def can_drop(self, count: int) -> bool:
        """Whether the newest tokens can be taken back: those of the window."""
        return count <= self.window.count

    @property
    def room(self) -> int:
        """Tokens up to the next eviction step."""
        interval = self.config.interval
        return min(interval - self.seen % interval, interval - self.seen + self.compacted_at)

    def is_stored_as(self, dtype: torch.dtype) -> bool:
        """Whether kernels on a CPU can read the tokens, as numbers of this type."""
        retained = self.retained
        on_cpu = retained.keys.device.type == "cpu"
        return on_cpu and retained.dtype is dtype and retained.is_contiguous

    def reserve(self, tokens: int, heads: int) -> tuple[int, ...]:
        """`sequence_t` of native/kernels/attend.h: where a kernel finds the tokens, and where it
        stores `tokens` new ones with the queries of so many heads.
        """
        retained, policy, interval = self.retained, self.config.policy, self.config.interval
        groups, size = len(retained.lengths), retained.keys.shape[1]
        self.window.reserve(tokens, interval, retained.dtype, ((groups, size), (groups, size)))
        place = (*retained.addresses, *self.window.addresses)
        if not policy.observes:
            return (*place[:-1], 0, self.window.count, 0, 0, 0, 0, 0)
        limit = interval + policy.num_carried_queries(self.compacted_at)
        self.queries.reserve(tokens, limit, retained.dtype, ((heads, size), (heads,)))
        counts = 0, self.window.count
        return (*place[:-1], *counts, *self.queries.addresses, self.queries.count)

    def advance(self, tokens: int) -> None:
        """Count tokens that a kernel has stored."""
        self.window.count += tokens
        if self.config.policy.observes:
            self.queries.count += tokens
        self.seen += tokens

    def drop_last(self, count: int) -> None:
        """Take back the newest tokens, all of them in the window."""
        self.window.drop_last(count)
        self.queries.drop_last(count)
        self.seen -= count

    def stored(self) -> int:
        """Tokens held, summed over the KV heads."""
        return sum(self.retained.lengths) + self.window.count * len(self.retained.lengths)

    def tensors(self) -> list[Tensor]:
        """Every tensor that is held, empty rows of buffers included."""
        return [*self.retained.columns().values(), *self.window.tensors(), *self.queries.tensors()]

    def token_cost(self, token_nbytes: int, num_layers: int) -> TokenCost:
        """What the sequence costs at most in `num_layers` layers like this one.

        token_nbytes: bytes of a retained token in one head.
        """
        retained, queries = self.retained, self.queries.columns()
        size = retained.keys.shape[-1] + retained.values.shape[-1]
        row_nbytes = len(retained.lengths) * size * retained.dtype.itemsize
        row_nbytes += sum(column[:, 0].nbytes for column in queries)
        most = self.config.interval + self.config.policy.num_carried_queries(self.seen)
        heads = num_layers * len(self.retained.lengths)
        return TokenCost(token_nbytes, heads, num_layers * row_nbytes * most)
