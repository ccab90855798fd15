"""The full cache: nothing is ever evicted. The baseline of all policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from namm_llm.policies.base import ScorePolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class Full(ScorePolicy):
    """Keeps every token."""

    name: ClassVar[str] = "full"
    threshold: ClassVar[float | None] = 0.0
    evicts: ClassVar[bool] = False

    def score(self, tokens: HeadTokens) -> Tensor:
        return torch.zeros(len(tokens), device=tokens.keys.device)
