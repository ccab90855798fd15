"""StreamingLLM: attention sinks and a recent window (arXiv 2309.17453)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from namm_llm.policies.base import ScorePolicy, check_whole
from namm_llm.tokens import HeadTokens


@dataclass(frozen=True)
class StreamingLLM(ScorePolicy):
    """Keeps the first `num_sinks` tokens and the newest ones, whatever they are."""

    name: ClassVar[str] = "streaming_llm"
    num_sinks: int = 4
    """First tokens of the text that always stay."""

    def __post_init__(self) -> None:
        check_whole("num_sinks", self.num_sinks, 0)

    @property
    def sinks(self) -> int:
        return self.num_sinks

    def score(self, tokens: HeadTokens) -> Tensor:
        return tokens.positions.float()
