"""StreamingLLM: attention sinks and a recent window (arXiv 2309.17453)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from namm_llm.attention.observation import Observation
from namm_llm.policies.base import EvictionPolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class StreamingLLM(EvictionPolicy):
    """Keeps the first `num_sinks` tokens and the newest ones. Forgets the middle, whatever it says."""

    name: ClassVar[str] = "streaming_llm"
    num_sinks: int = 4

    @property
    def sinks(self) -> int:
        return self.num_sinks

    def score(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        return segment.positions.float()
