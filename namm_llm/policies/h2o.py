"""H2O: heavy hitters, the tokens with the largest sum of attention received (arXiv 2306.14048)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from namm_llm.attention.observation import Observation
from namm_llm.policies.base import EvictionPolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class H2O(EvictionPolicy):
    """Half of the budget for the newest tokens, half for the heavy hitters, as in the paper."""

    name: ClassVar[str] = "h2o"
    observes: ClassVar[bool] = True
    recent_share: float = 0.5

    @property
    def state_width(self) -> int:
        return 1

    def protect_recent(self, limit: int) -> int:
        return int(limit * self.recent_share)

    def update(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        assert observation is not None
        return segment.state + observation.total(observation.fresh, observation.stop)[:, None]

    def score(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        return segment.state[:, 0]
