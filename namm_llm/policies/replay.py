"""QueryReplay: keep what the text would look for if it were read a second time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from namm_llm.attention.observation import Observation
from namm_llm.policies.base import RECENT, EvictionPolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class QueryReplay(EvictionPolicy):
    """The most attention that a token gets when the queries since the last update are asked again
    from behind it; remembered for ever.

    KVzip (arXiv 2505.23416) runs the model over the text a second time for this. Here the queries
    of the first time are turned to their new positions (RoPE), so that it costs one more pass over
    the keys and no forward pass. border: queries of the interval before that are asked again too,
    for what they look for may have come only now.
    """

    name: ClassVar[str] = "replay"
    observes: ClassVar[bool] = True
    comparable: ClassVar[bool] = True
    border: int = 16

    @property
    def replays(self) -> bool:
        return True

    @property
    def state_width(self) -> int:
        return 1

    @property
    def state_dtype(self) -> torch.dtype:
        return torch.float16

    def protect_recent(self, limit: int) -> int:
        return min(RECENT, limit // 8)

    def carry(self, seen: int) -> int:
        return self.border

    def update(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        assert observation is not None
        most = observation.max_replayed_attention(observation.fresh - self.border, observation.stop)
        return torch.maximum(segment.state.float(), most[:, None])

    def score(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        return segment.state[:, 0].float()
