"""Probes: a forward pass over the cache as it is, of which nothing is kept but what its queries
paid to stored tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from namm_llm.attention.grouped import grouped_attention
from namm_llm.cache.handle_layer import HandleLayer
from namm_llm.cache.interface import ManagedKeys
from namm_llm.cache.layer import ManagedLayer
from namm_llm.cache.sequence import LayerSequence, ProbeQueries
from namm_llm.models.placement import device_of


@dataclass(frozen=True)
class Prober:
    """Runs probes through `model`. A cache that is copied shares its model."""

    model: PreTrainedModel

    def __deepcopy__(self, memo: object) -> Prober:
        return self

    @torch.no_grad()
    def run(
        self, layers: Sequence[Any], row: int, probes: Sequence[Sequence[int]]
    ) -> list[ProbeQueries]:
        """What the probes (token ids each) found in the sequence `row`, for each managed layer.
        Each is asked by itself, right behind the text; the cache is left as it is.
        """
        seen = next(
            layer.sequences[row].seen for layer in layers if isinstance(layer, ManagedLayer)
        )
        longest = max(map(len, probes))
        # filled up at the end, where causal attention does not see it
        ids = torch.tensor([[*probe, *[probe[-1]] * (longest - len(probe))] for probe in probes])
        positions = torch.arange(seen, seen + longest).expand(len(probes), -1)
        readers = [self._reader(layer, row, [len(probe) for probe in probes]) for layer in layers]
        device = device_of(self.model.get_input_embeddings())
        cache = Cache(layers=cast("list[Any]", readers))
        self.model(
            input_ids=ids.to(device),
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return [reader.heard for reader in readers if isinstance(reader, _Reader)]

    def _reader(self, layer: Any, row: int, lengths: list[int]) -> CacheLayerMixin:
        if isinstance(layer, ManagedLayer):
            return _Reader(layer.sequences[row], lengths)
        window = deepcopy(layer)
        window.batch_select_indices(torch.tensor([row] * len(lengths)))
        return cast(CacheLayerMixin, window)


class _Reader(HandleLayer):
    """One layer as probes see it: they attend to what is stored and to themselves, and nothing is
    stored.
    """

    def __init__(self, sequence: LayerSequence, lengths: Sequence[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sequence = sequence
        self.lengths = lengths
        self.heard: ProbeQueries
        self.is_initialized = True

    def update(  # type: ignore[override]  # as of `ManagedLayer`
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[ManagedKeys, Tensor]:
        """A handle for attention."""
        return _ProbeKeys(self, key_states, value_states), value_states

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Queries `[P, H, T, D]` to output `[P, T, H, D]`; notes queries and their log-sum-exp."""
        sequence, out, heard = self.sequence, [], []
        window = (
            sequence.window.columns()
            if sequence.window.count
            else [keys[0, :, :0], values[0, :, :0]]
        )
        for probe, length in enumerate(self.lengths):
            own = (
                torch.cat([old, new[probe]], 1)
                for old, new in zip(window, (keys, values), strict=True)
            )
            found, lse = grouped_attention(
                query[probe], sequence.retained, *own, scale=sequence.scale
            )
            out.append(found.transpose(0, 1))
            heard.append((query[probe, :, :length], lse[:, :length]))
        self.heard = ProbeQueries(*(torch.cat(column, 1) for column in zip(*heard, strict=True)))
        return torch.stack(out)

    def get_seq_length(self) -> int:
        """Tokens before the probes."""
        return self.sequence.seen


@dataclass(frozen=True)
class _ProbeKeys(ManagedKeys):
    """Keys and values `[P, G, T, D]` of probes on their way from `update` to attention."""

    reader: _Reader
    keys: Tensor
    values: Tensor

    def attend(self, query: Tensor, padding: Tensor | None, scale: float) -> Tensor:
        return self.reader.attend(query, self.keys, self.values)
