"""QueryReplay: keep the tokens that the text itself would look for if it came a second time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from namm_llm.attention.observation import Observation
from namm_llm.policies.base import RECENT, ObservingPolicy, check_whole
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class QueryReplay(ObservingPolicy):
    """Keeps the tokens with the largest attention under query replay, remembered for ever.

    KVzip (arXiv 2505.23416) runs the model over the text a second time for this. Here the queries
    of the first time are rotated to their new positions (RoPE), so that it costs one more pass over
    the keys and no forward pass.
    """

    name: ClassVar[str] = "replay"
    comparable: ClassVar[bool] = True
    border: int = 16
    """Queries before the last eviction step that are replayed again: what they look for may have
    come only now.
    """

    def __post_init__(self) -> None:
        check_whole("border", self.border, 0)

    @property
    def rotates(self) -> bool:
        return True

    @property
    def state_width(self) -> int:
        return 1

    @property
    def state_dtype(self) -> torch.dtype:
        return torch.float16

    def protect_recent(self, limit: int) -> int:
        return min(RECENT, limit // 8)

    def num_carried_queries(self, seen: int) -> int:
        return self.border

    def update_state(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        largest = observation.max_replayed_attention(observation.new_start - self.border)
        return torch.maximum(tokens.state.float(), largest[:, None])

    def score(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        return tokens.state[:, 0].float()
