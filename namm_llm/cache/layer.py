"""One layer of the managed cache, as transformers sees it.

A batch is a list of sequences, each with its own lengths and its own schedule of eviction steps, so
that a batch gives what its sequences give alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, NoReturn

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import (
    CacheLayerMixin,
    DynamicSlidingWindowLayer,
    get_layer_types_and_kwargs,
)

from namm_llm.attention.rope import Rotation, rotation_of
from namm_llm.cache.sequence import LayerSequence
from namm_llm.cache.transformers import PendingLayer
from namm_llm.config import CacheConfig
from namm_llm.errors import CacheError, ModelError
from namm_llm.tokens import RaggedTokens

_MANAGED = "full_attention"
_SLIDING = ("sliding_attention", "chunked_attention")


class ManagedLayer(PendingLayer):
    """Retained tokens and window of one layer for every sequence of the batch.

    It does not know its cache: were they to hold each other, memory that is evicted with them would
    wait for Python's garbage collector.
    """

    def __init__(
        self, index: int, configs: Sequence[CacheConfig], rotation: Rotation | None = None
    ) -> None:
        """index: of the layer among the managed ones. configs: settings of the sequences to come,
        one for all of them or one for each. rotation: the model's, for policies with query replay.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.index = index
        self.configs = tuple(configs)
        self.rotation = rotation
        self.sequences: list[LayerSequence] = []
        self.columns = 0
        """Columns that went through, padding included: the length that transformers asks for."""

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
    ) -> Iterator[int]:
        """Store keys and values `[B, G, T, D]` and attend with queries `[B, H, T, D]`, into `out`
        `[B, H, T, D]`, zeros, which stay at padding (bool `[B, T]`, false there). Yields the row of
        a sequence wherever an eviction step is due, for the caller to run it.

        Raises CacheError for another number of sequences than the cache holds.
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
            for _ in sequence.extend(attended, *new):
                yield row
            out[row, :, real] = attended
        self.columns += query.shape[2]

    def _initialize(self, keys: Tensor, scale: float) -> None:
        if not self.sequences:
            for config in self.configs_of(keys.shape[0]):
                policy, quantised = config.policy, config.kv_bits is not None
                empty = RaggedTokens.empty(
                    keys[0], policy.state_width, policy.state_dtype, quantised
                )
                self.sequences.append(LayerSequence(config, empty, scale))
            self.is_initialized = True
        elif self.sequences[0].retained.keys.device != keys.device:
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
        chosen = []
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
        """Take back the newest -`tokens_to_remove` tokens. Raises CacheError if an eviction step
        has been run over some of them.
        """
        count = -tokens_to_remove
        if count < 0:
            raise CacheError("crop takes minus the number of tokens to remove.")
        if any(sequence.window.count < count for sequence in self.sequences):
            raise CacheError(
                f"{count} tokens cannot be taken back: an eviction step has already been run over "
                "some of them; read the text again."
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


def layers_for(model: PreTrainedModel, configs: Sequence[CacheConfig]) -> list[CacheLayerMixin]:
    """Empty layers, by the kinds that the model's configuration names."""
    kinds, kwargs = get_layer_types_and_kwargs(model.config.get_text_config(decoder=True))
    layers: list[CacheLayerMixin] = []
    rotation = rotation_of(model) if any(config.policy.replays for config in configs) else None
    # transformers 5.17 has one dict for all layers
    arguments = kwargs if isinstance(kwargs, list) else [kwargs] * len(kinds)
    for kind, own in zip(kinds, arguments, strict=True):
        if kind == _MANAGED:
            index = sum(isinstance(layer, ManagedLayer) for layer in layers)
            layers.append(ManagedLayer(index, configs, rotation))
        elif kind in _SLIDING:
            layers.append(DynamicSlidingWindowLayer(**own))
        else:
            raise ModelError(
                f"{type(model).__name__} has layers of type {kind}, which the evicting cache "
                "cannot manage."
            )
    if _MANAGED not in kinds:
        raise ModelError(
            f"{type(model).__name__} has only sliding-window layers: there is nothing for an "
            "evicting cache to manage."
        )
    return layers


def joined(layers: Sequence[Any]) -> CacheLayerMixin:
    """One layer that holds forks of the sequences of all of these."""
    if not isinstance(layers[0], ManagedLayer):
        return _joined_sliding(layers)
    # documents keep their own policies, so that one sequence of a batch may replay and another not
    rotation = next((layer.rotation for layer in layers if layer.rotation is not None), None)
    batch = ManagedLayer(layers[0].index, layers[0].configs, rotation)
    batch.sequences = [sequence.fork() for layer in layers for sequence in layer.sequences]
    batch.columns = max(layer.columns for layer in layers)
    batch.is_initialized = bool(batch.sequences)
    return batch


def _joined_sliding(layers: Sequence[Any]) -> CacheLayerMixin:
    """The same for layers with a sliding window, whose mask is one for all rows of a batch."""
    batch: DynamicSlidingWindowLayer = copy(layers[0])
    keys, values = [layer.keys for layer in layers], [layer.values for layer in layers]
    if len({0 if part is None else part.shape[-2] for part in keys}) > 1:
        raise CacheError(
            "caches with sliding windows can be joined into a batch only if these hold equally "
            "many tokens; ask one question at a time."
        )
    if keys[0] is not None:
        batch.keys, batch.values = torch.cat(keys), torch.cat(values)
        batch.cumulative_length = max(layer.cumulative_length for layer in layers)
    return batch
