"""Novelty: tokens whose values no newer token repeats are worth keeping (this project)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from namm_llm.namm.novelty import repeated
from namm_llm.policies.base import ScorePolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class Novelty(ScorePolicy):
    """Keeps the tokens whose value is least similar (cosine) to that of any newer token.

    So of what comes again and again, such as frames of a scene that stands still, the newest stays.
    Values, because keys carry their position. It is what the backward attention of a NAMM, in which
    a token sees newer ones, can learn for values.
    """

    name: ClassVar[str] = "novelty"

    def score(self, tokens: HeadTokens) -> Tensor:
        return -repeated(tokens.values)
