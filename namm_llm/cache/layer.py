"""One layer of the managed cache, as transformers sees it: `update` takes keys and values,
attention comes back for the storage.

A batch is a list of sequences, each with its own lengths and its own update schedule, so that a
batch gives what its sequences give alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from namm_llm.attention.rope import Rotation
from namm_llm.cache.handle_layer import HandleLayer
from namm_llm.cache.interface import ManagedKeys
from namm_llm.cache.sequence import LayerSequence
from namm_llm.config import CacheConfig
from namm_llm.errors import CacheError
from namm_llm.tokens import RaggedTokens

OnDue = Callable[["ManagedLayer", int], None]


@dataclass(frozen=True)
class _NewTokens(ManagedKeys):
    """Keys and values `[B, G, T, D]` on their way from `update` to attention."""

    layer: ManagedLayer
    keys: Tensor
    values: Tensor
    on_due: OnDue

    def attend(self, query: Tensor, padding: Tensor | None, scale: float) -> Tensor:
        return self.layer.extend(query, self.keys, self.values, padding, scale, self.on_due)


class ManagedLayer(HandleLayer):
    """Settled and window tokens of one layer for every sequence of the batch.

    evictions: settings of the sequences to come, one for all of them or one for each. rotation: the
    model's, if a policy reads again. columns: how many columns went through, left padding included,
    which is the length that transformers asks for. It does not know its cache: were they to hold
    each other, memory that is evicted with them would wait for Python's garbage collector.
    """

    def __init__(self, evictions: Sequence[CacheConfig], rotation: Rotation | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.evictions = tuple(evictions)
        self.rotation = rotation
        self.sequences: list[LayerSequence] = []
        self.columns = 0

    # the "keys" that attention gets are our handle on the storage
    def update(  # type: ignore[override]
        self,
        key_states: Tensor,
        value_states: Tensor,
        on_due: OnDue,
        *args: object,
        **kwargs: object,
    ) -> tuple[ManagedKeys, Tensor]:
        """Keys and values `[B, G, T, D]` of the new tokens; they are stored when attention asks for
        them.
        """
        return _NewTokens(self, key_states, value_states, on_due), value_states

    def extend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        padding: Tensor | None,
        scale: float,
        on_due: OnDue,
    ) -> Tensor:
        """Store the new tokens and attend: queries `[B, H, T, D]` to output `[B, T, H, D]`, zero at
        padding. on_due: called with this layer and the row of a sequence whose update falls due.
        """
        self._initialize(keys, scale)
        batch, heads, new, _ = query.shape
        if batch != len(self.sequences):
            raise CacheError(
                f"the cache holds {len(self.sequences)} sequences, the model was given {batch}"
            )
        out = query.new_zeros(batch, heads, new, values.shape[-1])
        for row, sequence in enumerate(self.sequences):
            real = slice(None) if padding is None else _real_columns(padding[row])
            out[row, :, real] = sequence.extend(
                query[row, :, real],
                keys[row, :, real],
                values[row, :, real],
                self._due(row, on_due),
            )
        self.columns += new
        return out.transpose(1, 2)

    def _initialize(self, keys: Tensor, scale: float) -> None:
        if not self.sequences:
            for eviction in self.evictions_of(keys.shape[0]):
                policy = eviction.policy
                empty = RaggedTokens.empty(
                    keys[0],
                    policy.state_width,
                    policy.state_dtype,
                    quantised=eviction.kv_bits is not None,
                )
                self.sequences.append(LayerSequence(eviction, empty, scale))
            self.is_initialized = True
        elif self.sequences[0].retained.keys.device != keys.device:
            self.place(keys.device)

    def place(self, device: torch.device) -> None:
        """Move what is stored to this device, that of the layer's weights."""
        self.sequences = [sequence.to(device) for sequence in self.sequences]

    def evictions_of(self, rows: int) -> tuple[CacheConfig, ...]:
        """Settings of `rows` new sequences. Raises CacheError if the cache was made for another
        number of them.
        """
        if len(self.evictions) not in (1, rows):
            raise CacheError(
                f"the cache has settings for {len(self.evictions)} sequences, the model was given {rows}"
            )
        return self.evictions * rows if len(self.evictions) == 1 else self.evictions

    def protect(self, spans: Sequence[tuple[int, int]]) -> None:
        """Never evict the tokens at these positions."""
        self.evictions = tuple(eviction.protect(spans) for eviction in self.evictions)
        for sequence in self.sequences:
            sequence.eviction = sequence.eviction.protect(spans)

    def _due(self, row: int, on_due: OnDue) -> Callable[[LayerSequence], None]:
        return lambda sequence: on_due(self, row)

    def get_seq_length(self) -> int:
        """Columns that went through, not tokens stored (as transformers' sliding-window layer
        does).
        """
        return self.columns

    def reset(self) -> None:
        """Forget everything."""
        self.sequences, self.columns, self.is_initialized = [], 0, False

    def select(self, rows: Sequence[int]) -> None:
        """Keep these sequences, in this order; one that is named again is forked."""
        used: set[int] = set()
        chosen = []
        for row in rows:
            chosen.append(self.sequences[row].fork() if row in used else self.sequences[row])
            used.add(row)
        self.sequences = chosen

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Beam search."""
        if self.sequences:
            self.select(beam_idx.tolist())

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these sequences of the batch."""
        self.select(torch.arange(len(self.sequences))[indices.cpu()].tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence `repeats` times."""
        self.select([row for row in range(len(self.sequences)) for _ in range(repeats)])

    def crop(self, tokens_to_remove: int) -> None:
        """Take back the newest -`tokens_to_remove` tokens, if no update has judged them yet."""
        count = -tokens_to_remove
        if count < 0:
            raise CacheError("crop takes minus the number of tokens to remove")
        if any(sequence.window.count < count for sequence in self.sequences):
            raise CacheError(
                f"{count} tokens cannot be taken back: an update has already judged some of them; read the text again"
            )
        for sequence in self.sequences:
            sequence.drop_last(count)
        self.columns -= count


def _real_columns(padding: Tensor) -> slice | Tensor:
    """Where a row of the padding mask is true; a slice if the tokens stand together, as they nearly
    always do.
    """
    at = padding.nonzero()[:, 0]
    if len(at) and int(at[-1]) - int(at[0]) + 1 == len(at):
        return slice(int(at[0]), int(at[-1]) + 1)
    return at
