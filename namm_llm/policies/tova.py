"""TOVA: attention of the last query alone (arXiv 2401.06104)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from namm_llm.attention.fold import Sum
from namm_llm.attention.observation import Observation
from namm_llm.policies.base import ObservingPolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class TOVA(ObservingPolicy):
    """Keeps the tokens that the newest query attends to, averaged over the query heads of the group
    (the paper: over all heads of a layer).
    """

    name: ClassVar[str] = "tova"

    def num_carried_queries(self, seen: int) -> int:
        return 1

    def score(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        zeros = observation.lse.new_zeros(len(tokens), 1)
        return observation.fold(Sum(), zeros, start=observation.query_stop - 1)[:, 0]
