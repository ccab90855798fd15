"""The threshold of a NAMM that was made under budgets: they rank tokens, and say nothing of which
score is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import torch
from transformers import PreTrainedModel

from namm_lab.train.collection import read_with
from namm_llm import CacheConfig, Namm
from namm_llm.cache import EvictionEvent
from namm_llm.policies import NammPolicy


@torch.no_grad()
def set_threshold(
    model: PreTrainedModel, config: CacheConfig, documents: Sequence[Sequence[int]]
) -> Namm:
    """The NAMM of `config`, a `NammPolicy` under a budget, with its zero where the budget cuts: the
    median over all eviction steps.

    The published rule (score >= 0, no budget) then keeps about as much as the budget does.
    documents: token ids.
    """
    policy = config.policy
    assert isinstance(policy, NammPolicy)
    cuts = [cut for document in documents for cut in _cuts(model, config, document)]
    return policy.namm.with_zero_at(median(cuts)) if cuts else policy.namm


def _cuts(model: PreTrainedModel, config: CacheConfig, document: Sequence[int]) -> list[float]:
    """At each eviction step that removes tokens: half-way between the worst score of as many tokens
    as were kept and the next.
    """
    steps: dict[int, list[EvictionEvent]] = {}
    read_with(model, document, config, lambda event: steps.setdefault(event.seen, []).append(event))
    cuts = []
    for events in steps.values():
        scores = torch.cat([score.cpu() for event in events for score in event.scores])
        kept = sum(
            len(tokens) if indices is None else len(indices)
            for event in events
            for tokens, indices in zip(event.heads, event.kept, strict=True)
        )
        if kept < len(scores):
            cuts.append(float(scores.topk(kept + 1).values[-2:].mean()))
    return cuts
