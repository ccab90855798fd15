"""H2O: heavy hitters, the tokens with the largest sum of attention received (arXiv 2306.14048)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from namm_llm.attention.fold import Sum
from namm_llm.attention.observation import Observation
from namm_llm.errors import PolicyError
from namm_llm.policies.base import ObservingPolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class H2O(ObservingPolicy):
    """Half of the budget for the newest tokens, half for the heavy hitters, as in the paper."""

    name: ClassVar[str] = "h2o"
    recent_share: float = 0.5
    """Share of the budget for the newest tokens, from 0 to 1."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.recent_share <= 1.0:
            raise PolicyError(f"recent_share must be from 0 to 1, not {self.recent_share!r}")

    @property
    def state_width(self) -> int:
        return 1

    def protect_recent(self, limit: int) -> int:
        return int(limit * self.recent_share)

    def update_state(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        return observation.fold(Sum(), tokens.state)

    def score(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        return tokens.state[:, 0]
