"""A sample read with an evicting cache: what the model predicts, and when each token left."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_lab.train.adapt.samples import AdaptSample
from namm_llm import CacheConfig, ManagedCache
from namm_llm.cache import EvictionEvent
from namm_llm.engine import forward

NEVER = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Reading:
    """What came out of reading a sample."""

    logits: Tensor
    """`[n, V]`: for each of the n tokens of the target, before it was read."""
    evicted_at: dict[int, Tensor]
    """By the number of a layer in the model, `[G, T]`: the position of the first token that does
    not see this one any more, `NEVER` if all do. Layers that never evict are left out."""


@torch.no_grad()
def read(model: PreTrainedModel, sample: AdaptSample, config: CacheConfig) -> Reading:
    """Read the document, evict, and read prompt and target, which stay: as a question is asked."""
    document, rest = sample.document, [*sample.prompt, *sample.target]
    cache = ManagedCache.for_model(model, config)
    total = len(document) + len(rest)
    at: dict[int, Tensor] = {}

    def note(event: EvictionEvent) -> None:
        rows = at.setdefault(event.layer, torch.full((len(event.heads), total), NEVER))
        for row, tokens, kept in zip(rows, event.heads, event.kept, strict=True):
            if kept is not None:
                gone = torch.ones(len(tokens), dtype=torch.bool)
                gone[kept.cpu()] = False
                row[tokens.positions.cpu().long()[gone]] = event.seen

    cache.on_eviction = note
    first = _feed(model, cache, document, config.interval, last_only=True)[-1:]
    cache.evict()
    cache.protect([(len(document), total)])
    others = _feed(model, cache, rest[:-1], config.interval, last_only=False)
    managed = {id(layer): layer.index for layer in cache.managed}
    numbers = {n: managed.get(id(layer)) for n, layer in enumerate(cache.layers)}
    evicted_at = {n: at[index] for n, index in numbers.items() if index is not None and index in at}
    return Reading(torch.cat([first, others])[-len(sample.target) :], evicted_at)


def _feed(
    model: PreTrainedModel, cache: ManagedCache, ids: object, chunk: int, *, last_only: bool
) -> Tensor:
    """Logits `[T, V]`, or those of the last token of each piece."""
    batch = torch.tensor([list(ids)], dtype=torch.int64)  # type: ignore[call-overload]
    pieces = forward.feed(model, cache, batch, chunk=chunk, last_only=last_only)
    found = [piece[0] for piece in pieces]
    return torch.cat(found) if found else torch.empty(0, 0)
