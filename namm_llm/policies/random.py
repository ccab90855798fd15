"""Random eviction: what any policy must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from namm_llm.attention.observation import Observation
from namm_llm.policies.base import EvictionPolicy
from namm_llm.tokens import HeadTokens

_MIX = (0x7FEB352D, 0x846CA68B)  # lowbias32, a 32-bit integer hash with little bias
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Random(EvictionPolicy):
    """A score drawn from the token's position and `seed`: the same in every run, batch and
    chunking.
    """

    name: ClassVar[str] = "random"
    seed: int = 0

    def score(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        x = (segment.positions.to(torch.int64) + self.seed * 0x9E3779B9) & _WORD
        for factor in _MIX:
            x = ((x ^ (x >> 16)) * factor) & _WORD
        return (x ^ (x >> 16)).float()
