"""SnapKV: attention of a last window of queries, smoothed over neighbours (arXiv 2404.14469)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import max_pool1d

from namm_llm.attention.fold import Sum
from namm_llm.attention.observation import Observation
from namm_llm.errors import PolicyError
from namm_llm.policies.base import ObservingPolicy, check_whole
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class SnapKV(ObservingPolicy):
    """Keeps the tokens with the largest mean attention of the last `window` queries, max-pooled
    over neighbours; the window itself stays.

    The paper evicts once, after the prompt, when the window is the question. Here it evicts at
    every step, so that its window is the end of the text so far.
    """

    name: ClassVar[str] = "snapkv"
    window: int = 32
    """Queries, at least 1."""
    kernel: int = 7
    """Tokens of the max-pooling, an odd number."""

    def __post_init__(self) -> None:
        check_whole("window", self.window, 1)
        check_whole("kernel", self.kernel, 1)
        if self.kernel % 2 == 0:
            raise PolicyError(f"kernel must be an odd number, not {self.kernel}")

    def protect_recent(self, limit: int) -> int:
        return min(self.window, limit // 2)

    def num_carried_queries(self, seen: int) -> int:
        return self.window

    def score(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        start = max(observation.query_start, observation.query_stop - self.window)
        zeros = observation.lse.new_zeros(len(tokens), 1)
        attention = observation.fold(Sum(), zeros, start=start)[:, 0]
        mean = attention / (observation.query_stop - start)
        return max_pool1d(mean[None], self.kernel, stride=1, padding=self.kernel // 2)[0]
