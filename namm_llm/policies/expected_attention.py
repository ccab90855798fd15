"""Expected Attention: what later queries will pay, from the mean and covariance of those that came
(arXiv 2510.00636).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from namm_llm.attention.observation import Observation
from namm_llm.errors import PolicyError
from namm_llm.policies.base import ObservingPolicy, check_whole
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class ExpectedAttention(ObservingPolicy):
    """Keeps the tokens with the largest expected attention times the length of their value.

    Queries before RoPE are taken as normally distributed, so that the expected `exp(q k)` of a key
    follows from their mean and covariance, rotated to the average of the next `horizon` positions.
    The paper evicts once, after the prompt, with the statistics of all its queries; here they are
    those of the queries since the last eviction step, and of `window` before them.
    """

    name: ClassVar[str] = "expected_attention"
    horizon: int = 512
    """Future positions that are averaged over, at least 1."""
    window: int = 64
    """Queries before the last eviction step that count too, so that a last short step has some."""
    num_sinks: int = 4
    """First tokens that always stay; their queries and keys are outliers and do not count."""
    epsilon: float = 0.0
    """Added to the attention, so that a long value counts without any (the paper: 0 to 0.02)."""

    def __post_init__(self) -> None:
        check_whole("horizon", self.horizon, 1)
        check_whole("window", self.window, 0)
        check_whole("num_sinks", self.num_sinks, 0)
        if not 0.0 <= self.epsilon < float("inf"):
            raise PolicyError(f"epsilon must be a number from 0 on, not {self.epsilon!r}")

    @property
    def rotates(self) -> bool:
        return True

    @property
    def sinks(self) -> int:
        return self.num_sinks

    def num_carried_queries(self, seen: int) -> int:
        return self.window

    def score(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        rotation, start = observation.rotation, observation.query_start
        assert rotation is not None, "the cache was not made for a policy that rotates"
        skipped = min(max(self.num_sinks - start, 0), observation.queries.shape[1] - 1)
        at = torch.arange(start + skipped, observation.query_stop, device=tokens.keys.device)
        # all queries as if they stood right behind the text
        moved = rotation.factors(observation.query_stop - at)
        queries = rotation.apply(observation.queries[:, skipped:], moved)  # [R, Q, D]
        mean = queries.mean(1, keepdim=True)
        spread = (queries - mean).mT @ (queries - mean) / len(at)  # [R, D, D]
        # to turn a key back is to turn the queries on
        future = rotation.factors(torch.arange(self.horizon, device=at.device)).mean(0)
        keys = rotation.apply(tokens.keys, future.conj()) * observation.scale  # [N, D]
        logits = (mean @ keys.T)[:, 0] + 0.5 * ((keys @ spread) * keys).sum(-1)  # [R, N]
        is_sink = tokens.positions < self.num_sinks
        attention = logits.masked_fill(is_sink, -torch.inf).softmax(-1).mean(0)
        scores = (attention + self.epsilon) * tokens.values.float().norm(dim=-1)
        return torch.where(is_sink, scores.amax(), scores)
