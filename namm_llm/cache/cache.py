"""`ManagedCache`: an evicting cache behind transformers' `Cache`, for our runner and for anybody's
`model.generate`.

It owns the layers and decides when which of them are judged together; storage is in `sequence.py`,
decisions are in `policies`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicSlidingWindowLayer,
    get_layer_types_and_kwargs,
)

from namm_llm.attention.rope import rotation_of
from namm_llm.cache.interface import IMPLEMENTATION
from namm_llm.cache.layer import ManagedLayer
from namm_llm.cache.probes import Prober
from namm_llm.cache.sequence import LayerSequence, ProbeQueries, ScoredHeads
from namm_llm.cache.state import check_settings, fill_layers, layers_state
from namm_llm.cache.stats import CacheStats
from namm_llm.cache.timing import stage
from namm_llm.config import CacheConfig, make_cache_config
from namm_llm.config.header import config_to_dict
from namm_llm.errors import CacheError, ModelError, PolicyError
from namm_llm.models.placement import layer_devices
from namm_llm.policies.base import EvictionPolicy

_MANAGED = "full_attention"
_SLIDING = ("sliding_attention", "chunked_attention")


class ManagedCache(Cache):
    """A key-value cache that evicts, for models of transformers.

    Layers with full attention are managed; layers with a sliding window keep transformers' own
    window, which is bounded anyway.
    """

    prober: Prober | None = None  # of a policy that takes probes

    @classmethod
    def for_model(
        cls,
        model: PreTrainedModel,
        policy: str | EvictionPolicy | CacheConfig | None = None,
        **settings: Any,
    ) -> ManagedCache:
        """An empty cache for `model`; switches the model to the attention that can read it.

        settings: as of `make_cache_config` (budget, namm, budget_scope, interval, sinks, window,
        protected, kv_bits). The model goes on working with any other cache. Raises ModelError if
        the model cannot use it, PolicyError or BudgetError for wrong settings.
        """
        return cls.for_population(
            model, [make_cache_config(settings.pop("eviction", policy), **settings)]
        )

    @classmethod
    def for_population(
        cls, model: PreTrainedModel, evictions: Sequence[CacheConfig]
    ) -> ManagedCache:
        """An empty cache for a batch whose sequences each have settings of their own; each is what
        it would be in a cache alone.

        evictions: one for each row of the batch, or a single one for all of them.
        """
        prepare_model(model)
        cache = cls(layers=[])
        cache.layers = list(_layers_for(model, evictions))
        cache.prober = _prober_for(model, evictions)
        return cache

    @property
    def evictions(self) -> tuple[CacheConfig, ...]:
        """Settings of each sequence; before the first token those that the cache was made for."""
        layer = self.managed[0]
        return tuple(sequence.eviction for sequence in layer.sequences) or layer.evictions

    @property
    def eviction(self) -> CacheConfig:
        """Settings of the first sequence; of all, unless the cache is a population's."""
        return self.evictions[0]

    # -- updates -----------------------------------------------------------------------------------
    # -------------------------------

    @property
    def managed(self) -> list[ManagedLayer]:
        """The layers that evict."""
        return [layer for layer in self.layers if isinstance(layer, ManagedLayer)]

    def update(  # as of `Cache`; a managed layer hands back who judges it
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values `[B, G, T, D]` of the layer's new tokens; attention gets a handle in the
        place of the keys.
        """
        layer: Any = self.layers[layer_idx]
        own = (self.on_due,) if isinstance(layer, ManagedLayer) else args
        return cast("tuple[Tensor, Tensor]", layer.update(key_states, value_states, *own, **kwargs))

    def on_due(self, layer: ManagedLayer, row: int) -> None:
        """Judge the sequence `row` where the update of this layer is due: this layer alone, or all
        of them once the last is there.
        """
        if not layer.sequences[row].eviction.waits_for_model:
            self._update([layer], row)
        elif layer is self.managed[-1]:
            self._update(self.managed, row)

    @torch.no_grad()  # nobody trains through an eviction
    def _update(self, layers: Sequence[ManagedLayer], row: int) -> None:
        """Judge the sequence `row` in these layers together, and evict."""
        sequences = [layer.sequences[row] for layer in layers]
        heard = self._probe(layers, row)
        judgements = [
            layer.sequences[row].judge(layer.rotation, own)
            for layer, own in zip(layers, heard, strict=True)
        ]
        together = (
            [slice(None)]
            if sequences[0].eviction.shares_model
            else [slice(at, at + 1) for at in range(len(layers))]
        )
        for part in together:
            with stage("select"):
                keep = iter(self._select(sequences[part], judgements[part]))
            for sequence, judgement in zip(sequences[part], judgements[part], strict=True):
                sequence.settle(judgement.segments, [next(keep) for _ in judgement.segments])

    def _probe(self, layers: Sequence[ManagedLayer], row: int) -> Sequence[ProbeQueries | None]:
        """What the probes of the sequence `row` find in each of these layers, if any are due; then
        they are all that there are.
        """
        sequence = layers[0].sequences[row]
        policy = sequence.eviction.policy
        if not policy.probes_at(sequence.updates + 1):
            return [None] * len(layers)
        assert self.prober is not None
        with stage("probe"):
            return self.prober.run(self.layers, row, policy.probe_ids)

    def _select(
        self, sequences: Sequence[LayerSequence], judgements: Sequence[ScoredHeads]
    ) -> list[Tensor | None]:
        eviction = sequences[0].eviction
        segments = [segment for judgement in judgements for segment in judgement.segments]
        if not eviction.policy.evicts:
            return [None] * len(segments)
        scores = [score for judgement in judgements for score in judgement.scores]
        device = scores[0].device
        kept = eviction.select(
            [score.to(device) for score in scores],
            [segment.positions.to(device) for segment in segments],
            sequences[0].seen,
            sequences[0].room(segments[0], len(self.managed)),
        )
        return [
            None if k is None else k.to(s.positions.device)
            for k, s in zip(kept, segments, strict=True)
        ]

    def settle(self) -> None:
        """Judge what came since the last update now, for instance at the end of a document.

        A sequence shorter than one update interval is left as it is: nothing of a short text is
        evicted.
        """
        for row, sequence in enumerate(self.managed[0].sequences if self.managed else []):
            if not sequence.window.count or sequence.seen < sequence.eviction.interval:
                continue
            if sequence.eviction.waits_for_model:
                self._update(self.managed, row)
            else:
                for layer in self.managed:
                    self._update([layer], row)

    def protect(self, spans: Sequence[tuple[int, int]]) -> None:
        """Never evict the tokens at these positions `(start, end)`; what is already gone stays
        gone.
        """
        for layer in self.managed:
            layer.protect(spans)

    # -- forks and batches -------------------------------------------------------------------------
    # -------------------------------

    def fork(self) -> ManagedCache:
        """A cache that goes on from here on its own; the retained tokens are shared, not copied."""
        return self.join([self])

    @classmethod
    def join(cls, caches: Sequence[ManagedCache]) -> ManagedCache:
        """Forks of all sequences of these caches side by side, as one batch; each keeps its
        settings.
        """
        joined = cls(layers=[])
        joined.layers = [
            joined._join_layer(layers)
            for layers in zip(*(cache.layers for cache in caches), strict=True)
        ]
        joined.prober = next((cache.prober for cache in caches if cache.prober is not None), None)
        return joined

    def _join_layer(self, layers: Sequence[Any]) -> CacheLayerMixin:
        if not isinstance(layers[0], ManagedLayer):
            if len(layers) > 1:
                raise CacheError(
                    "a model with sliding-window layers cannot join caches into a batch; ask one question at a time"
                )
            return cast(CacheLayerMixin, deepcopy(layers[0]))
        # a document keeps its own policy, so one sequence of a batch may read again and another not
        rotation = next((layer.rotation for layer in layers if layer.rotation is not None), None)
        joined = ManagedLayer(layers[0].evictions, rotation)
        for layer in layers:
            assert isinstance(layer, ManagedLayer)
            joined.sequences += [sequence.fork() for sequence in layer.sequences]
            joined.columns = max(joined.columns, layer.columns)
        joined.is_initialized = bool(joined.sequences)
        return joined

    def select(self, rows: Sequence[int]) -> None:
        """Keep these sequences of the batch, in this order, in place; one that is named again is
        forked.
        """
        self.reorder_cache(torch.LongTensor(list(rows)))

    def activate_past_recording(self) -> None:
        """Asked for by assisted decoding, which takes tokens back."""
        raise CacheError(
            "assisted decoding takes tokens back, which an evicting cache cannot; generate without an assistant model"
        )

    # -- saving ------------------------------------------------------------------------------------
    # -------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Contiguous tensors, and metadata in text, that `from_state` makes the same cache of."""
        if len(self.managed) < len(self.layers):
            raise CacheError(
                "a cache with sliding-window layers cannot be saved; keep the document in memory, or read it again"
            )
        tensors, numbers = layers_state(self.managed)
        return tensors, {"cache": numbers, "eviction": json.dumps(config_to_dict(self.eviction))}

    @classmethod
    def from_state(
        cls,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        *,
        model: PreTrainedModel,
        eviction: CacheConfig,
    ) -> ManagedCache:
        """The cache that `state` was taken of, each layer beside its weights.

        Raises CacheError for other eviction settings, or if it does not fit the model.
        """
        check_settings(metadata.get("eviction", ""), eviction)
        cache = cls.for_model(model, eviction=eviction)
        fill_layers(cache.managed, tensors, metadata.get("cache", ""))
        devices = layer_devices(model)
        for index, layer in enumerate(cache.managed):  # all of them: windows are not saved
            layer.place(devices[index])
        return cache

    # -- numbers -----------------------------------------------------------------------------------
    # -------------------------------

    def seen_tokens(self) -> list[int]:
        """Tokens that went through, for each sequence."""
        return [sequence.seen for sequence in self.managed[0].sequences]

    def kept_tokens(self) -> list[list[list[int]]]:
        """Tokens stored `[layer][sequence][KV head]`, window ones included."""
        return [
            [[n + s.window.count for n in s.retained.lengths] for s in layer.sequences]
            for layer in self.managed
        ]

    def tensors(self) -> list[Tensor]:
        """Every tensor that the cache holds alive, empty room included."""
        held = [
            tensor
            for layer in self.managed
            for sequence in layer.sequences
            for tensor in sequence.tensors()
        ]
        windows = [layer for layer in self.layers if isinstance(layer, DynamicSlidingWindowLayer)]
        return held + [
            tensor
            for layer in windows
            for tensor in (layer.keys, layer.values)
            if tensor is not None
        ]

    @property
    def nbytes(self) -> int:
        """Bytes of all live memory of the cache: keys, values, positions, the policy's state and
        all buffers; shared memory once.
        """
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for t in self.tensors()
            if t.numel()
        }
        return sum(storages.values())

    @property
    def full_nbytes(self) -> int:
        """Bytes of keys and values alone, as they were computed, had nothing been evicted."""
        return sum(
            sequence.seen * len(sequence.retained.lengths) * _token_nbytes(sequence)
            for layer in self.managed
            for sequence in layer.sequences
        )

    def stats(self) -> CacheStats:
        """The numbers that a result carries."""
        sequences = [sequence for layer in self.managed for sequence in layer.sequences]
        heads = sum(len(sequence.retained.lengths) for sequence in sequences)
        slots = sum(sequence.seen * len(sequence.retained.lengths) for sequence in sequences)
        stored = sum(sequence.stored() for sequence in sequences)
        rows = len(self.managed[0].sequences) if self.managed else 0
        return CacheStats(
            seen_tokens=sum(self.seen_tokens()) if rows else 0,
            stored_tokens=round(stored * rows / heads) if heads else 0,
            kept_fraction=stored / slots if slots else 1.0,
            nbytes=self.nbytes,
            full_nbytes=self.full_nbytes,
            updates=sum(s.updates for s in self.managed[0].sequences) if rows else 0,
            policy="; ".join(dict.fromkeys(eviction.describe() for eviction in self.evictions)),
        )


def _token_nbytes(sequence: LayerSequence) -> int:
    retained = sequence.retained
    return (retained.keys.shape[-1] + retained.values.shape[-1]) * retained.dtype.itemsize


def prepare_model(model: PreTrainedModel) -> None:
    """Switch the model to our attention function; with other caches it keeps working through
    transformers' SDPA.
    """
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"{type(model).__name__} is an encoder-decoder model; the evicting cache is for decoders"
        )
    if model.config._attn_implementation != IMPLEMENTATION:
        if not model._can_set_attn_implementation():
            raise ModelError(
                f"{type(model).__name__} does not support transformers' attention interface, which the evicting cache needs"
            )
        model.set_attn_implementation(IMPLEMENTATION)


def _prober_for(model: PreTrainedModel, evictions: Sequence[CacheConfig]) -> Prober | None:
    """PolicyError if a NAMM was made for probes and has none."""
    for policy in (eviction.policy for eviction in evictions):
        if policy.takes_probes and not policy.probe_ids:
            texts = ", ".join(map(repr, policy.probe_texts)) or "none of its own"
            raise PolicyError(
                f"this NAMM was made for probes (its texts: {texts}), and a cache has no tokenizer: name their token ids, "
                "probes=[tokenizer(text, add_special_tokens=False).input_ids, ...]; a Runner does it by itself"
            )
    return Prober(model) if any(eviction.policy.probe_ids for eviction in evictions) else None


def _layers_for(model: PreTrainedModel, evictions: Sequence[CacheConfig]) -> list[CacheLayerMixin]:
    types, kwargs = get_layer_types_and_kwargs(model.config.get_text_config(decoder=True))
    layers: list[CacheLayerMixin] = []
    rotation = (
        rotation_of(model) if any(eviction.policy.replays for eviction in evictions) else None
    )
    own = (
        kwargs if isinstance(kwargs, list) else [kwargs] * len(types)
    )  # transformers 5.17 has one dict for all layers
    for kind, arguments in zip(types, own, strict=True):
        if kind == _MANAGED:
            layers.append(ManagedLayer(evictions, rotation))
        elif kind in _SLIDING:
            layers.append(DynamicSlidingWindowLayer(**arguments))
        else:
            raise ModelError(
                f"{type(model).__name__} has layers of type {kind}, which the evicting cache cannot manage"
            )
    if _MANAGED not in types:
        raise ModelError(
            f"{type(model).__name__} has only sliding-window layers: there is nothing for an evicting cache to manage"
        )
    return layers
