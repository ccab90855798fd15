"""What a runner gives back: pieces while an answer is written, and the whole answer with its
numbers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from namm_llm.cache import CacheStats

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Piece:
    """A bit of the answer: whole characters, never part of a stop string, and the tokens that
    became text with it.
    """

    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Usage:
    """input_tokens: of the prompt, a document read before included. cached_tokens: those of them
    that were not computed again. output_tokens: of the answer, the token that ended it included.
    """

    input_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Timings:
    """load_seconds: of the model, whenever that was. first_token_seconds: since the question was
    asked, waiting in the queue included.
    """

    load_seconds: float
    prefill_seconds: float
    first_token_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class Generation:
    """A whole answer. finish_reason: `stop` (end of text, or a stop string), `length` (max_tokens,
    or the model's last trained position) or `cancelled`.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    cache: CacheStats
    model: str

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints: text, finish_reason, usage, timings, cache, model."""
        return asdict(self)
