"""The layers of the managed cache: those that evict, and which kind each layer of a model gets."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import get_layer_types_and_kwargs

from namm_llm.attention.rope import Rotation, rotation_of
from namm_llm.cache.batch import BatchLayer
from namm_llm.cache.positions import CompactPositions, compact_positions_of
from namm_llm.cache.sequence import LayerSequence
from namm_llm.cache.sliding import SlidingLayer
from namm_llm.config import CacheConfig
from namm_llm.errors import CacheError, ModelError
from namm_llm.tokens import RaggedTokens

_MANAGED = "full_attention"
_CHUNKED = "chunked_attention"
_BOUNDED = ("sliding_attention", _CHUNKED)


class ManagedLayer(BatchLayer):  # type: ignore[no-untyped-call]
    """Retained tokens and window of one layer for every sequence of the batch."""

    sequences: list[LayerSequence]

    def __init__(
        self,
        index: int,
        configs: Sequence[CacheConfig],
        rotation: Rotation | None = None,
        compact: CompactPositions | None = None,
    ) -> None:
        """index: of the layer among the managed ones. configs: settings of the sequences to come,
        one for all of them or one for each. rotation: the model's, for policies with query replay.
        compact: how tokens are moved to compact positions, None if they never are.
        """
        super().__init__(configs)
        self.index = index
        self.rotation = rotation
        self.compact = compact

    def new_sequence(self, config: CacheConfig, keys: Tensor, scale: float) -> LayerSequence:
        """See `BatchLayer`."""
        policy, quantised = config.policy, config.kv_bits is not None
        empty = RaggedTokens.empty(keys, policy.state_width, policy.state_dtype, quantised)
        return LayerSequence(config, empty, scale)

    def rotated_at(
        self,
        sequence: LayerSequence,
        positions: Sequence[Sequence[int]] | None,
        row: int,
        real: slice | Tensor,
    ) -> tuple[Any, ...]:
        """Positions of the row's tokens and the model's rotation, where positions may be compact.

        Raises CacheError if the model does not tell the positions.
        """
        if self.compact is None or not sequence.config.may_compact:
            return ()
        if positions is None:
            raise CacheError(
                "this model does not tell its attention the positions of new tokens, which compact "
                "positions need; use positions='original'."
            )
        # those of the only row are those of all
        own = positions[row if len(positions) > 1 else 0]
        at = own[real] if isinstance(real, slice) else [own[column] for column in real.tolist()]
        return at, self.compact.rotation

    def start_after(self, sequence: LayerSequence) -> int | None:
        """Position of the window that follows an eviction step of now; None where all positions are
        original.
        """
        if self.compact is None:
            return None
        if sequence.window_start is not None:
            return min(sequence.seen, self.compact.room(sequence.config))
        return self.compact.start_after(sequence.config, sequence.seen)

    def room(self, sequence: LayerSequence) -> int | None:
        """Most tokens that a head may keep then, whatever the budget; None for no such limit."""
        if self.compact is None or self.start_after(sequence) is None:
            return None
        return self.compact.room(sequence.config)


def layers_for(model: PreTrainedModel, configs: Sequence[CacheConfig]) -> list[BatchLayer]:
    """Empty layers, by the kinds that the model's configuration names. Raises ModelError for kinds
    that cannot be had, and for settings that evict where no layer could.
    """
    text = model.config.get_text_config(decoder=True)
    kinds, kwargs = get_layer_types_and_kwargs(text)
    layers: list[BatchLayer] = []
    rotation = rotation_of(model) if any(config.policy.rotates for config in configs) else None
    compact = compact_positions_of(model, configs) if _MANAGED in kinds else None
    # transformers 5.17 has one dict for all layers
    arguments = kwargs if isinstance(kwargs, list) else [kwargs] * len(kinds)
    for kind, own in zip(kinds, arguments, strict=True):
        if kind == _MANAGED:
            index = sum(isinstance(layer, ManagedLayer) for layer in layers)
            layers.append(ManagedLayer(index, configs, rotation, compact))
        elif kind in _BOUNDED:
            layers.append(SlidingLayer(configs, own["sliding_window"], is_chunked=kind == _CHUNKED))
        else:
            raise ModelError(
                f"{type(model).__name__} has layers of type {kind}, which the evicting cache "
                "cannot manage."
            )
    if _MANAGED not in kinds and any(config.policy.evicts for config in configs):
        raise ModelError(
            f"{type(model).__name__} has only sliding-window layers, which never hold more than "
            f"their {max(each['sliding_window'] for each in arguments)} newest tokens: there is "
            "nothing to evict; use policy='full' without a budget."
        )
    kv_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    for config in configs:
        config.policy.check_model(kinds.count(_MANAGED), kv_heads)
    return layers


def joined(layers: Sequence[BatchLayer]) -> BatchLayer:
    """One layer that holds forks of the sequences of all of these."""
    batch = copy(layers[0])
    batch.sequences = [sequence.fork() for layer in layers for sequence in layer.sequences]
    batch.columns = max(layer.columns for layer in layers)
    batch.is_initialized = bool(batch.sequences)
    if isinstance(batch, ManagedLayer):
        # documents keep their own policies: one sequence of a batch may replay and another not
        rotations = (layer.rotation for layer in cast("Sequence[ManagedLayer]", layers))
        batch.rotation = next((each for each in rotations if each is not None), None)
        compacts = (layer.compact for layer in cast("Sequence[ManagedLayer]", layers))
        batch.compact = next((each for each in compacts if each is not None), None)
    return batch
