"""The target of distillation: how much attention later queries paid to each token of a document,
with the full cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_lab.train.collection import read_with
from namm_lab.train.documents import TrainDocument
from namm_llm import CacheConfig
from namm_llm.attention.observation import Observation
from namm_llm.cache import EvictionEvent
from namm_llm.config import INTERVAL
from namm_llm.policies import ObservingPolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class LargestAttention(ObservingPolicy):
    """Keeps every token, and remembers the largest attention that any query head paid to it from a
    position on.
    """

    name: ClassVar[str] = "largest_attention"
    threshold: ClassVar[float | None] = 0.0
    start: int = 0
    """Position of the first query that counts; only tokens before it are looked at."""

    @property
    def state_width(self) -> int:
        return 1

    def update_state(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        state = tokens.state.clone()
        first = max(self.start, observation.new_start)
        if first >= observation.query_stop:
            return state
        since = first - observation.query_start
        queries = observation.queries[:, since:].float().flatten(0, 1) * observation.scale
        before = int(torch.searchsorted(tokens.positions, self.start))
        logits = queries @ tokens.keys[:before].float().T
        largest = logits.sub_(observation.lse[:, since:].flatten()[:, None]).amax(0).exp_()
        state[:before, 0] = torch.maximum(state[:before, 0], largest)
        return state

    def score(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        return tokens.state.new_zeros(len(tokens))


def target_attention(model: PreTrainedModel, document: TrainDocument) -> list[Tensor]:
    """For each layer that evicts the largest attention `[G, N]` that any later query of the group
    paid to each of the document's N tokens.
    """
    assert document.queries, "a document without queries"
    count, largest = len(document.document), dict[int, Tensor]()

    def note(event: EvictionEvent) -> None:
        largest[event.layer] = torch.stack([head.state[:count, 0].cpu() for head in event.heads])

    # the last eviction step comes after the last query, and has seen all of them
    config = CacheConfig(policy=LargestAttention(count), interval=INTERVAL)
    read_with(model, [*document.document, *document.queries], config, note, to_the_end=True)
    return [largest[layer] for layer in sorted(largest)]
