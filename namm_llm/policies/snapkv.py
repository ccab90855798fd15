"""SnapKV: attention of a last window of queries, smoothed over neighbours (arXiv 2404.14469)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import max_pool1d

from namm_llm.attention.observation import Observation
from namm_llm.policies.base import EvictionPolicy
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class SnapKV(EvictionPolicy):
    """Mean attention of the last `window` queries, max-pooled over `kernel` neighbours; the window
    itself stays.

    The paper evicts once, after the prompt, when the window is the question. Here it judges at
    every update, so that its window is whatever the text says last.
    """

    name: ClassVar[str] = "snapkv"
    observes: ClassVar[bool] = True
    window: int = 32
    kernel: int = 7

    def protect_recent(self, limit: int) -> int:
        return min(self.window, limit // 2)

    def carry(self, seen: int) -> int:
        return self.window

    def score(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        assert observation is not None
        start = max(observation.first, observation.stop - self.window)
        attention = observation.total(start, observation.stop) / (observation.stop - start)
        return max_pool1d(attention[None], self.kernel, stride=1, padding=self.kernel // 2)[0]
