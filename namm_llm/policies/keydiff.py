"""KeyDiff: keys that differ from the average key are worth keeping (arXiv 2504.15364)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from namm_llm.policies.base import ScorePolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class KeyDiff(ScorePolicy):
    """Keeps the tokens whose keys are least similar (cosine) to the mean of the normalised keys."""

    name: ClassVar[str] = "keydiff"

    def score(self, tokens: HeadTokens) -> Tensor:
        keys = tokens.keys.float()
        anchor = normalize(keys, dim=-1).mean(0)
        return -cosine_similarity(keys, anchor[None], dim=-1)
