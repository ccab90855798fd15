"""Sequences of embeddings: films and episodes, which have no token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_lab.train.collection import FeatureSample
from namm_lab.train.target_attention import LargestAttention
from namm_lab.universal.domain import Notes
from namm_llm import CacheConfig, ManagedCache
from namm_llm.cache import EvictionEvent
from namm_llm.engine import forward

_SPACING = 4  # intervals between two of the places from which later attention is measured


@dataclass(frozen=True)
class Sequences:
    """B sequences side by side, and how their model reads them."""

    decoder: PreTrainedModel
    embeds: Tensor
    """`[B, T, E]`; what comes behind a sequence's end is no token."""
    lengths: list[int]
    position: int | None = None
    """See `forward.feed_embeds`."""

    def read(self, configs: Sequence[CacheConfig], on_eviction: Notes | None = None) -> Tensor:
        """The hidden states `[B, T, E]`."""
        cache = ManagedCache.for_population(self.decoder, configs)
        if on_eviction is not None:
            cache.on_eviction = on_eviction
        embeds = self.embeds.repeat(len(configs) // len(self.embeds) or 1, 1, 1)
        return forward.feed_embeds(self.decoder, cache, embeds, position=self.position)

    def samples(self, config: CacheConfig, firsts: Sequence[int]) -> list[FeatureSample]:
        """What the NAMM of `config` sees at every eviction step, and the most attention that any
        token pays from the sequence's own of `firsts` on, or, behind that, from the next of some
        places on. The last steps, which none of these places follow, are left out.
        """
        notes, paid = Notes(), dict[int, dict[tuple[int, int], Tensor]]()
        self.read([config] * len(self.embeds), notes)
        spacing = _SPACING * config.interval

        def start_of(event: EvictionEvent) -> int:
            first = firsts[event.row]
            return first if event.seen <= first else -(-event.seen // spacing) * spacing

        notes.events = [e for e in notes.events if start_of(e) < self.lengths[e.row]]
        for start in sorted(set(map(start_of, notes.events))):
            paid[start] = self._paid_from(start, config.interval)

        def target(event: EvictionEvent, head: int) -> Tensor:
            return paid[start_of(event)][event.layer, event.row][head]

        return list(notes.samples(target))

    def _paid_from(self, start: int, interval: int) -> dict[tuple[int, int], Tensor]:
        """By layer and row `[G, T]`: the most attention that a token at or behind `start` pays."""
        largest: dict[tuple[int, int], Tensor] = {}
        cache = ManagedCache.for_model(
            self.decoder, CacheConfig(policy=LargestAttention(start), interval=interval)
        )

        def note(event: EvictionEvent) -> None:
            largest[event.layer, event.row] = torch.stack(
                [head.state[:, 0] for head in event.heads]
            )

        cache.on_eviction = note
        forward.feed_embeds(self.decoder, cache, self.embeds, position=self.position)
        cache.evict()
        return largest
