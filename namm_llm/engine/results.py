"""What a runner gives back: events while answers are written, whole answers, their numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from namm_llm.cache import CacheStats

FinishReason = Literal["stop", "length", "cancelled"]
OnProgress = Callable[[int, int], None]  # called with the tokens that are read, and all of them


@dataclass(frozen=True)
class TokenLogprob:
    """The natural log-probability of a token as the model gave it, before sampling parameters."""

    token_id: int
    text: str
    """Its text; the replacement character stands for part of a character."""
    logprob: float
    top: tuple[TokenLogprob, ...] = ()
    """The likeliest tokens in its place, likeliest first."""

    def to_openai(self) -> dict[str, Any]:
        """As an entry of `logprobs.content` in a chat completion."""
        is_whole = "\N{REPLACEMENT CHARACTER}" not in self.text
        return {
            "token": self.text,
            "logprob": self.logprob,
            "bytes": list(self.text.encode()) if is_whole else None,
            "top_logprobs": [_without_top(each.to_openai()) for each in self.top],
        }


def _without_top(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "top_logprobs"}


@dataclass(frozen=True)
class Piece:
    """A bit of an answer: whole characters, never part of a stop string."""

    text: str
    token_ids: tuple[int, ...]
    """The tokens that became text with it."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of these tokens, where the request asked for them."""


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens."""

    input_tokens: int
    """Of the prompt, a document read before included."""
    cached_tokens: int
    """Those of them that were not computed again."""
    output_tokens: int
    """Of the answer, the token that ended it included."""


@dataclass(frozen=True)
class Timings:
    """Seconds that an answer took."""

    load_seconds: float
    """Of the model, whenever that was."""
    prefill_seconds: float
    """Reading the prompt."""
    first_token_seconds: float
    """Since the question was asked, waiting in the queue included."""
    decode_seconds: float
    """From the first token of text to the last."""


@dataclass(frozen=True)
class Generation:
    """A whole answer."""

    text: str
    finish_reason: FinishReason
    """`stop` (end of text, or a stop string), `length` (max_tokens, or the model's last trained
    position) or `cancelled`."""
    usage: Usage
    timings: Timings
    cache: CacheStats
    model: str
    """The name that the model was loaded by."""
    looped: bool = False
    """Whether it was ended because it repeated itself (`stop_loops`); `finish_reason` is `stop`."""
    closed_early: bool = False
    """Whether JSON was brought to its end because `max_tokens` came near."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """Of all tokens of the text, where the request asked for them."""

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints: the fields, and those of usage, timings and cache."""
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """How far a prompt or a document is read, in tokens."""

    done: int
    total: int
    row: int = 0
    """Number of the request."""


@dataclass(frozen=True)
class RowPiece:
    """A piece of the answer to one request."""

    row: int
    piece: Piece


@dataclass(frozen=True)
class RowResult:
    """The whole answer to one request."""

    row: int
    generation: Generation


@dataclass(frozen=True)
class RowError:
    """What went wrong with one request alone; its reader sees the error itself."""

    row: int
    error: Exception


Event = Progress | RowPiece | RowResult
