"""Novelty: tokens whose values no newer token repeats are worth keeping (this project)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from namm_llm.policies.base import ScorePolicy
from namm_llm.tokens import HeadTokens

_BLOCK = (
    512  # tokens that are compared at once, so that memory grows with N and not with its square
)


@dataclass(frozen=True)
class Novelty(ScorePolicy):
    """Keeps the tokens whose value is least similar (cosine) to that of any newer token.

    So of what comes again and again, such as frames of a scene that stands still, the newest stays.
    Values, because keys carry their position. It is what the backward attention of a NAMM, in which
    a token sees newer ones, can learn for values.
    """

    name: ClassVar[str] = "novelty"

    def score(self, tokens: HeadTokens) -> Tensor:
        values = normalize(tokens.values.float(), dim=-1)
        likest = values.new_empty(len(values))
        for start in range(0, len(values), _BLOCK):
            similar = values[start : start + _BLOCK] @ values[start:].T
            older = torch.ones_like(similar, dtype=torch.bool).tril()
            # the newest has nothing newer, and a similarity is at least -1
            likest[start : start + _BLOCK] = similar.masked_fill(older, -1.0).amax(-1)
        return -likest
