"""What comes back: the summary, the parts that it was made of, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from namm_llm.cache import CacheStats
from namm_llm.engine.results import FinishReason, Generation, Timings, Usage


@dataclass(frozen=True)
class Part:
    """A part of the text."""

    start: int
    """Its first character in the text."""
    stop: int
    """The character behind its last."""
    tokens: int
    """Its length."""
    summary: str
    """Of it alone; with `refine`, of everything up to its end."""


@dataclass(frozen=True)
class Summary:
    """A whole summary."""

    text: str
    finish_reason: FinishReason
    """Of the last call."""
    looped: bool
    """Whether it was ended because it began to repeat itself."""
    method: str
    """`one-pass`, `map-reduce` or `refine`."""
    parts: tuple[Part, ...]
    """What the text was cut into, in order; empty for a document that was read before."""
    calls: int
    """Answers that were written for it."""
    cut_calls: int
    """Those of them that `max_tokens` cut."""
    resumed: int
    """Those of them that an earlier run had left in its work file."""
    usage: Usage
    """The sum over all calls, those of an earlier run included."""
    timings: Timings
    """The same; first_token_seconds: from the start of this run to the summary's first piece."""
    cache: CacheStats
    """Of the call with the largest cache."""
    model: str

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; text, finish_reason, usage, timings, cache and model as in
        `Generation.to_dict`.
        """
        return asdict(self)


def total_usage(calls: Sequence[Generation]) -> Usage:
    """The sum of what the calls used."""
    used = [call.usage for call in calls]
    return Usage(
        sum(one.input_tokens for one in used),
        sum(one.cached_tokens for one in used),
        sum(one.output_tokens for one in used),
    )


def total_timings(
    calls: Sequence[Generation], load_seconds: float, first_token_seconds: float
) -> Timings:
    """The sum of the time that the calls took."""
    return Timings(
        load_seconds=load_seconds,
        prefill_seconds=sum(call.timings.prefill_seconds for call in calls),
        first_token_seconds=first_token_seconds,
        decode_seconds=sum(call.timings.decode_seconds for call in calls),
    )


def largest_cache(calls: Sequence[Generation], policy: str) -> CacheStats:
    """The cache that took most memory; an empty one if there was no call."""
    none = CacheStats(0, 0, 1.0, 0, 0, 0, policy)
    return max((call.cache for call in calls), key=lambda cache: cache.nbytes, default=none)
