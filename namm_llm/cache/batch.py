"""`BatchLayer`: what the layers of the managed cache have in common, as transformers sees them.

A batch is a list of sequences, each with its own length, so that a batch gives what its sequences
give alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from namm_llm.cache.transformers import PendingLayer
from namm_llm.config import CacheConfig
from namm_llm.errors import CacheError


class BatchLayer(PendingLayer):
    """One layer of a batch of sequences. A subclass makes sequences of its kind.

    It does not know its cache: were they to hold each other, memory that is evicted with them would
    wait for Python's garbage collector.
    """

    sequences: list[Any]
    """`LayerSequence` or `SlidingSequence`, one for each row."""

    def __init__(self, configs: Sequence[CacheConfig]) -> None:
        """configs: settings of the sequences to come, one for all of them or one for each."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.configs = tuple(configs)
        self.sequences = []
        self.columns = 0
        """Columns that went through, padding included: the length that transformers asks for."""

    def new_sequence(self, config: CacheConfig, keys: Tensor, scale: float) -> Any:
        """An empty sequence, for keys like `[G, T, D]`. scale: factor of the attention logits."""
        raise NotImplementedError

    def update(self, *args: object, **kwargs: object) -> NoReturn:
        """Tokens come through `ManagedCache.update`, which runs the eviction steps."""
        raise CacheError("a layer of an evicting cache cannot be used without its cache.")

    def extend(
        self,
        out: Tensor,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        padding: Tensor | None,
        scale: float,
        positions: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[int]:
        """Store keys and values `[B, G, T, D]` and attend with queries `[B, H, T, D]`, into `out`
        `[B, H, T, D]`, zeros, which stay at padding (bool `[B, T]`, false there). Yields the row of
        a sequence wherever an eviction step is due, for the caller to run it.

        positions: `[B][T]`, at which the model rotated queries and keys; needed where those of the
        cache are compact. Raises CacheError for another number of sequences than the cache holds.
        """
        self._initialize(keys, scale)
        if len(query) != len(self.sequences):
            raise CacheError(
                f"the cache holds {len(self.sequences)} sequences, the model was given {len(query)}"
            )
        for row, sequence in enumerate(self.sequences):
            real = slice(None) if padding is None else _real_columns(padding[row])
            new = query[row, :, real], keys[row, :, real], values[row, :, real]
            attended = query.new_empty(*new[0].shape[:2], values.shape[-1])
            for _ in sequence.extend(
                attended, *new, *self.rotated_at(sequence, positions, row, real)
            ):
                yield row
            out[row, :, real] = attended
        self.columns += query.shape[2]

    def rotated_at(
        self,
        sequence: Any,
        positions: Sequence[Sequence[int]] | None,
        row: int,
        real: slice | Tensor,
    ) -> tuple[Any, ...]:
        """More arguments of a sequence's `extend`, for one that turns what it is given."""
        return ()

    def _initialize(self, keys: Tensor, scale: float) -> None:
        if not self.sequences:
            configs = self.configs_of(keys.shape[0])
            self.sequences = [self.new_sequence(config, keys[0], scale) for config in configs]
            self.is_initialized = True
        elif self.sequences[0].device != keys.device:
            self.place(keys.device)

    def place(self, device: torch.device) -> None:
        """Move the stored tokens to this device, that of the layer's weights."""
        self.sequences = [sequence.to(device) for sequence in self.sequences]

    def configs_of(self, rows: int) -> tuple[CacheConfig, ...]:
        """Settings of `rows` new sequences. Raises CacheError if the cache was made for another
        number of them.
        """
        if len(self.configs) not in (1, rows):
            raise CacheError(
                f"the cache has settings for {len(self.configs)} sequences, the model was given "
                f"{rows}"
            )
        return self.configs * rows if len(self.configs) == 1 else self.configs

    def protect(self, spans: Sequence[tuple[int, int]]) -> None:
        """Never evict the tokens at these positions."""
        self.configs = tuple(config.protect(spans) for config in self.configs)
        for sequence in self.sequences:
            sequence.config = sequence.config.protect(spans)

    def get_seq_length(self) -> int:
        """Columns that went through, not tokens stored (as transformers' sliding-window layer
        counts).
        """
        return self.columns

    def reset(self) -> None:
        """Forget everything."""
        self.sequences, self.columns, self.is_initialized = [], 0, False

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep these sequences, in this order; one that is named again is forked."""
        used: set[int] = set()
        chosen = list[Any]()
        for row in rows:
            chosen.append(self.sequences[row].fork() if row in used else self.sequences[row])
            used.add(row)
        self.sequences = chosen

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Beam search."""
        if self.sequences:
            self.select_rows(beam_idx.tolist())

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these sequences of the batch."""
        self.select_rows(torch.arange(len(self.sequences))[indices.cpu()].tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence `repeats` times."""
        self.select_rows([row for row in range(len(self.sequences)) for _ in range(repeats)])

    def crop(self, tokens_to_remove: int) -> None:
        """See `ManagedCache.crop`, which knows that it can be done."""
        for sequence in self.sequences:
            sequence.drop_last(-tokens_to_remove)
        self.columns += tokens_to_remove


def _real_columns(padding: Tensor) -> slice | Tensor:
    """Where a row of the padding mask is true; a slice if the tokens stand together, as they nearly
    always do.
    """
    at = padding.nonzero()[:, 0]
    if len(at) and int(at[-1]) - int(at[0]) + 1 == len(at):
        return slice(int(at[0]), int(at[-1]) + 1)
    return at
