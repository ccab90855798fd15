"""Random eviction: a lower bound for every other policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from namm_llm.policies.base import ScorePolicy
from namm_llm.tokens import HeadTokens

_MIX = (0x7FEB352D, 0x846CA68B)  # lowbias32, a 32-bit integer hash with little bias
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Random(ScorePolicy):
    """Keeps tokens by a hash of position and seed: the same in every run, batch and chunking."""

    name: ClassVar[str] = "random"
    seed: int = 0
    """Another seed, other tokens."""

    def score(self, tokens: HeadTokens) -> Tensor:
        x = (tokens.positions.to(torch.int64) + self.seed * 0x9E3779B9) & _WORD
        for factor in _MIX:
            x = ((x ^ (x >> 16)) * factor) & _WORD
        return (x ^ (x >> 16)).float()
