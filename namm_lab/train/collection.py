"""The features that a NAMM sees while it evicts, collected at every eviction step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_lab.train.documents import TrainDocument
from namm_llm import CacheConfig, ManagedCache
from namm_llm.cache import EvictionEvent
from namm_llm.engine import forward


@dataclass(frozen=True)
class FeatureSample:
    """One KV head at one eviction step: the N tokens that it holds."""

    state: Tensor
    """`[N, W]`: the policy's state."""
    ages: Tensor
    """`[N]`, in tokens."""
    target: Tensor
    """`[N]`: the attention that they were to receive."""
    head: int = 0
    """Its number among the KV heads of all layers that evict."""


@torch.no_grad()
def collect(
    model: PreTrainedModel, document: TrainDocument, targets: Sequence[Tensor], config: CacheConfig
) -> list[FeatureSample]:
    """Read the document with these settings: one sample for each eviction step, layer and KV head.

    targets: its `target_attention`.
    """
    samples: list[FeatureSample] = []

    def note(event: EvictionEvent) -> None:
        first = event.layer * len(event.heads)
        heads = zip(targets[event.layer], event.heads, strict=True)
        for head, (target, tokens) in enumerate(heads, first):
            ages = event.seen - 1 - tokens.positions
            target = target.to(ages.device)[tokens.positions.long()]
            samples.append(FeatureSample(tokens.state, ages, target, head))

    read_with(model, document.document, config, note)
    return samples


def read_with(
    model: PreTrainedModel,
    ids: Sequence[int],
    config: CacheConfig,
    on_eviction: Callable[[EvictionEvent], None],
    *,
    to_the_end: bool = False,
) -> None:
    """Read ids with these settings, an interval at a time, and tell of every eviction step.

    to_the_end: end with one more eviction step over what is left.
    """
    cache = ManagedCache.for_model(model, config)
    cache.on_eviction = on_eviction
    batch = torch.tensor([list(ids)], dtype=torch.int64)
    for _ in forward.feed(model, cache, batch, chunk=config.interval, last_only=True):
        pass
    if to_the_end:
        cache.evict()
