"""Key norm: tokens whose keys are short receive more attention (arXiv 2406.11430)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from namm_llm.policies.base import ScorePolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class KNorm(ScorePolicy):
    """Keeps the tokens with the shortest keys."""

    name: ClassVar[str] = "knorm"

    def score(self, tokens: HeadTokens) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(tokens.keys.float(), dim=-1)
        return -length
