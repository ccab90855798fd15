"""TOVA: attention of the last query alone (arXiv 2401.06104)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from namm_llm.attention.observation import Observation
from namm_llm.policies.base import EvictionPolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class TOVA(EvictionPolicy):
    """Keeps what the newest query attends to, averaged over the query heads of the group (the
    paper: over all heads of a layer).
    """

    name: ClassVar[str] = "tova"
    observes: ClassVar[bool] = True

    def carry(self, seen: int) -> int:
        return 1

    def score(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        assert observation is not None
        return observation.total(observation.stop - 1, observation.stop)
