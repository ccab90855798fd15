"""`ManagedCache`: an evicting cache behind transformers' `Cache`, for our runner and for anybody's
`model.generate`.

It owns the layers and knows which of them wait for others before an eviction step (`update.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from namm_llm.cache.batch import BatchLayer
from namm_llm.cache.layer import ManagedLayer, joined, layers_for
from namm_llm.cache.positions import GivenPositions
from namm_llm.cache.sliding import SlidingLayer
from namm_llm.cache.state import check_settings, fill_layers, layers_state
from namm_llm.cache.stats import CacheStats
from namm_llm.cache.transformers import PendingKeys, layer_devices, prepare_model
from namm_llm.cache.update import EvictionEvent, Stopwatch, evict
from namm_llm.config import CacheConfig, make_cache_config, settings_of, takes_settings
from namm_llm.config.header import config_to_dict
from namm_llm.errors import CacheError, PolicyError
from namm_llm.policies.base import EvictionPolicy


class ManagedCache(Cache):
    """A key-value cache that evicts, for models of transformers.

    Layers with full attention are managed; layers with a sliding window hold what their next token
    can see, which is bounded anyway.
    """

    layers: list[BatchLayer]  # type: ignore[assignment]
    """One for each layer of the model."""
    on_eviction: Callable[[EvictionEvent], None] | None = None
    """Called at every eviction step, right before tokens are removed. Forks do not inherit it."""
    stopwatch: Stopwatch | None = None
    """Times the stages of the eviction steps. Forks do not inherit it."""

    def __init__(self, *, layers: Sequence[Any]) -> None:
        super().__init__(layers=list(layers))
        self._given = GivenPositions()

    @classmethod
    @takes_settings("ManagedCache.for_model", settings_of("cache", "text"))
    def for_model(
        cls,
        model: PreTrainedModel,
        policy: str | EvictionPolicy | CacheConfig | None = None,
        **settings: Any,
    ) -> ManagedCache:
        """An empty cache for `model`; switches the model to the attention that can read it.

        The model goes on working with any other cache. Raises ModelError if the model cannot use
        it, PolicyError, BudgetError or UsageError for wrong settings.
        """
        config = make_cache_config(policy, **settings)
        if config.policy.repeats:
            raise PolicyError(
                f"policy {config.policy.name} needs the text a second time, which a plain call of "
                "the model cannot give it: use Runner, or another policy, such as replay."
            )
        return cls.for_population(model, [config])

    @classmethod
    def for_population(cls, model: PreTrainedModel, configs: Sequence[CacheConfig]) -> ManagedCache:
        """An empty cache for a batch whose rows each give the same as in a cache alone.

        configs: one for each row, or a single one for all. Raises ModelError.
        """
        prepare_model(model)
        cache = cls(layers=[])
        cache.layers = list(layers_for(model, configs))
        return cache

    @property
    def configs(self) -> tuple[CacheConfig, ...]:
        """Settings of each sequence; before the first token those that the cache was made for."""
        layer = self.layers[0]
        return tuple(sequence.config for sequence in layer.sequences) or layer.configs

    @property
    def config(self) -> CacheConfig:
        """Settings of the first sequence; of all, unless the cache is a population's."""
        return self.configs[0]

    # -- tokens and eviction steps -----------------------------------------------------------------

    @property
    def managed(self) -> list[ManagedLayer]:
        """The layers that evict."""
        return [layer for layer in self.layers if isinstance(layer, ManagedLayer)]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """New keys and values `[B, G, T, D]`; attention gets `PendingKeys` for them, and stores."""
        layer = self.layers[layer_idx]
        pending: Any = PendingKeys(key_states, value_states, partial(self._attend, layer))
        return pending, value_states

    def _attend(
        self,
        layer: BatchLayer,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        padding: Tensor | None,
        scale: float,
        positions: Tensor | None,
    ) -> Tensor:
        """See `PendingKeys.store`."""
        out = query.new_zeros(*query.shape[:3], values.shape[-1])
        at = self._given.on_host(positions) if self.reads_any_length else None
        for row in layer.extend(out, query, keys, values, padding, scale, at):
            self.evict_due(cast("ManagedLayer", layer), row)
        return out.transpose(1, 2)

    def next_positions(self) -> list[int]:
        """Where the model is to see the next token of each sequence, for its `position_ids`."""
        if not self.layers[0].sequences:
            return [0] * len(self.layers[0].configs)
        if len(self.managed) < len(self.layers):  # sliding windows see distances alone
            return self.seen_tokens()
        return [sequence.next_position for sequence in self.managed[0].sequences]

    @property
    def reads_any_length(self) -> bool:
        """Whether a text may be longer than the positions that the model was trained on."""
        return any(layer.compact is not None for layer in self.managed[:1])

    def evict_due(self, layer: ManagedLayer, row: int) -> None:
        """Run the step that is due in this layer: alone, or in all once the last one is there."""
        config = layer.sequences[row].config
        keep_all = bool(config.policy.repeats)  # until the end of the text
        if not config.shares_model or layer is self.managed[-1]:
            layers = self.managed if config.shares_model else [layer]
            self._evict(layers, row, keep_all=keep_all)

    def evict(self, *, keep_all: bool = False) -> None:
        """Run an eviction step over what the window holds now, for instance at the end of a
        document, however short it is. keep_all: no token is removed.
        """
        for row, sequence in enumerate(self.managed[0].sequences if self.managed else []):
            policy, is_short = sequence.config.policy, sequence.seen < sequence.config.interval
            if not (sequence.window.count or policy.repeats) or (is_short and not policy.evicts):
                continue
            if sequence.config.shares_model:
                self._evict(self.managed, row, keep_all=keep_all)
            else:
                for layer in self.managed:
                    self._evict([layer], row, keep_all=keep_all)

    def _evict(self, layers: Sequence[ManagedLayer], row: int, *, keep_all: bool = False) -> None:
        evict(
            layers,
            row,
            num_layers=len(self.managed),
            keep_all=keep_all,
            on_eviction=self.on_eviction,
            stopwatch=self.stopwatch,
        )

    def protect(self, spans: Sequence[tuple[int, int]]) -> None:
        """Never evict the tokens at these positions `(start, end)` from now on."""
        for layer in self.layers:
            layer.protect(spans)

    # -- forks and batches -------------------------------------------------------------------------

    def fork(self) -> ManagedCache:
        """An independent continuation of this cache; the retained tokens are shared, not copied."""
        return self.join([self])

    @classmethod
    def join(cls, caches: Sequence[ManagedCache]) -> ManagedCache:
        """Forks of all sequences side by side, as one batch; each keeps its settings."""
        batch = cls(layers=[])
        batch.layers = [
            joined(layers) for layers in zip(*(cache.layers for cache in caches), strict=True)
        ]
        return batch

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep these sequences in this order; one that is named again is forked."""
        self.reorder_cache(torch.LongTensor(list(rows)))

    def crop(self, tokens_to_remove: int) -> None:
        """Take back the newest -`tokens_to_remove` tokens. Raises CacheError if an eviction step
        has been run over some of them, or a sliding window has lost what it would show again.
        """
        count = -tokens_to_remove
        if count < 0:
            raise CacheError("crop takes minus the number of tokens to remove.")
        sequences = [sequence for layer in self.layers for sequence in layer.sequences]
        if not all(sequence.can_drop(count) for sequence in sequences):
            raise CacheError(
                f"{count} tokens cannot be taken back: an eviction step has already been run over "
                "some of them, or a sliding window has moved on; read the text again."
            )
        super().crop(tokens_to_remove)

    def activate_past_recording(self) -> None:
        """Asked for by assisted decoding, which takes tokens back. Raises CacheError."""
        raise CacheError(
            "assisted decoding takes tokens back, which an evicting cache cannot; generate without "
            "an assistant model."
        )

    # -- saving ------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Contiguous tensors, and metadata in text, that `from_state` makes the same cache of."""
        tensors, numbers = layers_state(self.layers)
        return tensors, {"cache": numbers, "config": json.dumps(config_to_dict(self.config))}

    @classmethod
    def from_state(
        cls,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        *,
        model: PreTrainedModel,
        config: CacheConfig,
    ) -> ManagedCache:
        """The cache whose `state` this is, each layer beside its weights.

        Raises CacheError for other settings, or if it does not fit the model.
        """
        check_settings(metadata.get("config", ""), config)
        cache = cls.for_population(model, [config])
        fill_layers(cache.layers, tensors, metadata.get("cache", ""), layer_devices(model))
        return cache

    # -- numbers -----------------------------------------------------------------------------------

    def seen_tokens(self) -> list[int]:
        """Tokens that went through, for each sequence."""
        return [sequence.seen for sequence in self.layers[0].sequences]

    def kept_tokens(self) -> list[list[list[int]]]:
        """Tokens stored `[layer][sequence][KV head]`, the window's included."""
        return [
            [[n + s.window.count for n in s.retained.lengths] for s in layer.sequences]
            for layer in self.managed
        ]

    def tensors(self) -> list[Tensor]:
        """Every tensor that the cache holds alive, empty rows of buffers included."""
        sequences = [sequence for layer in self.layers for sequence in layer.sequences]
        return [tensor for sequence in sequences for tensor in sequence.tensors()]

    def _sliding(self) -> list[Tensor]:
        """Keys and values of the layers with a sliding window."""
        layers = [layer for layer in self.layers if isinstance(layer, SlidingLayer)]
        return [t for layer in layers for sequence in layer.sequences for t in sequence.tensors()]

    @property
    def nbytes(self) -> int:
        """Bytes of all live memory: keys, values, positions, state and buffers; shared once."""
        storages = [t.untyped_storage() for t in self.tensors() if t.numel()]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    @property
    def full_nbytes(self) -> int:
        """Bytes of keys and values alone, as transformers' own cache would hold them."""
        total = sum(tensor.nbytes for tensor in self._sliding())
        for sequence in (sequence for layer in self.managed for sequence in layer.sequences):
            retained = sequence.retained
            sizes = retained.keys.shape[-1] + retained.values.shape[-1]
            total += sequence.seen * len(retained.lengths) * sizes * retained.dtype.itemsize
        return total

    def stats(self) -> CacheStats:
        """The numbers that a result carries."""
        layers: Sequence[BatchLayer] = self.managed or self.layers
        sequences = [sequence for layer in layers for sequence in layer.sequences]
        heads = sum(sequence.num_heads for sequence in sequences)
        slots = sum(sequence.seen * sequence.num_heads for sequence in sequences)
        stored = sum(sequence.stored() for sequence in sequences)
        rows = layers[0].sequences
        return CacheStats(
            seen_tokens=sum(self.seen_tokens()),
            stored_tokens=round(stored * len(rows) / heads) if heads else 0,
            kept_fraction=stored / slots if slots else 1.0,
            nbytes=self.nbytes,
            full_nbytes=self.full_nbytes,
            eviction_steps=sum(s.eviction_steps for s in rows) if self.managed else 0,
            policy="; ".join(dict.fromkeys(config.describe() for config in self.configs)),
        )
