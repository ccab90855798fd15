"""The features that a NAMM sees while it evicts, collected update by update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_lab.train.lessons import TrainDocument
from namm_llm.attention.observation import Observation
from namm_llm.cache import ManagedCache
from namm_llm.config import CacheConfig
from namm_llm.policies import NammPolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class Sample:
    """One KV head at one update: state `[N, bins]` and ages `[N]` of its tokens, and the attention
    `[N]` that they were to receive.
    """

    state: Tensor
    ages: Tensor
    wanted: Tensor


@dataclass(frozen=True)
class _Recorder(NammPolicy):
    """Scores as its NAMM does, and notes what it saw. One of them serves one reading."""

    seen: list[tuple[Tensor, Tensor, Tensor]] = field(
        default_factory=list, compare=False, repr=False
    )

    @property
    def scores_layer_at_once(self) -> bool:
        return False  # each head is noted by itself

    def score(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        assert observation is not None
        ages = observation.stop - 1 - segment.positions
        self.seen.append((segment.state, ages, segment.positions.long()))
        return super().score(segment, observation)


@torch.no_grad()
def collect(
    model: PreTrainedModel, lesson: TrainDocument, wanted: Sequence[Tensor], eviction: CacheConfig
) -> list[Sample]:
    """Read the lesson's document with these settings (their policy is a `NammPolicy`): one sample
    for each update, layer and KV head.

    wanted: what `later_attention` says of the lesson.
    """
    assert isinstance(eviction.policy, NammPolicy)
    recorder = _Recorder(eviction.policy.namm, eviction.policy.exact, eviction.policy.probes)
    cache = ManagedCache.for_model(model, replace(eviction, policy=recorder))
    for piece in torch.split(
        torch.tensor([lesson.document], device=model.device), eviction.interval, 1
    ):
        model(piece, past_key_values=cache, logits_to_keep=1)
    # layers are judged in their order, and so are a layer's heads
    heads = [(layer, head) for layer, most in enumerate(wanted) for head in range(len(most))]
    return [
        Sample(state, ages, wanted[layer][head][positions])
        for number, (state, ages, positions) in enumerate(recorder.seen)
        for layer, head in [heads[number % len(heads)]]
    ]
