"""The full cache: nothing is ever evicted. The baseline of baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from namm_llm.attention.observation import Observation
from namm_llm.policies.base import EvictionPolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class Full(EvictionPolicy):
    """Keeps every token."""

    name: ClassVar[str] = "full"
    threshold: ClassVar[float | None] = 0.0
    evicts: ClassVar[bool] = False

    def score(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        return torch.zeros(len(segment), device=segment.keys.device)
