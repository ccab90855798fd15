"""The threshold of a NAMM that was made under budgets: they rank tokens, and say nothing of which
score is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_llm.attention.observation import Observation
from namm_llm.cache import ManagedCache
from namm_llm.config import CacheConfig
from namm_llm.namm import Namm
from namm_llm.policies import NammPolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class _Recorder(NammPolicy):
    """Scores as its NAMM does, and notes them. One of them serves one reading."""

    seen: list[Tensor] = field(default_factory=list, compare=False, repr=False)

    @property
    def scores_layer_at_once(self) -> bool:
        return False  # one way through `score`

    def score(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        self.seen.append(super().score(segment, observation))
        return self.seen[-1]


@torch.no_grad()
def set_threshold(
    model: PreTrainedModel, eviction: CacheConfig, documents: Sequence[Sequence[int]]
) -> Namm:
    """The NAMM of `eviction`, a `NammPolicy` under a budget, with its zero where the budget cuts,
    the median over all updates.

    The published rule (score >= 0, no budget) then keeps about as much as the budget does.
    documents: token ids. One that remembers its own scores is left as it is, for their zero is part
    of what it sees.
    """
    policy = eviction.policy
    assert isinstance(policy, NammPolicy)
    if policy.namm.memory.past:
        return policy.namm
    cuts = [cut for document in documents for cut in _cuts(model, eviction, policy, document)]
    return policy.namm.with_zero_at(median(cuts)) if cuts else policy.namm


def _cuts(
    model: PreTrainedModel, eviction: CacheConfig, policy: NammPolicy, document: Sequence[int]
) -> list[float]:
    """At each update that evicts: half-way between the worst score of as many tokens as were kept
    and the next.
    """
    recorder = _Recorder(policy.namm, policy.exact, policy.probes)
    cache, cuts = ManagedCache.for_model(model, replace(eviction, policy=recorder)), list[float]()
    for piece in torch.split(
        torch.tensor([list(document)], device=model.device), eviction.interval, 1
    ):
        model(piece, past_key_values=cache, logits_to_keep=1)
        scores = (
            torch.cat([score.cpu() for score in recorder.seen]) if recorder.seen else torch.empty(0)
        )
        kept = sum(count for layer in cache.kept_tokens() for heads in layer for count in heads)
        if kept < len(scores):
            cuts.append(float(scores.topk(kept + 1).values[-2:].mean()))
        recorder.seen.clear()
    return cuts
