"""How a text is to be summarized, decided before anything is computed: which method, and which
parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

from namm_llm.config import SamplingParams
from namm_llm.errors import ContextError, UsageError
from namm_llm.runner import Runner
from namm_llm.summaries.cutting import cut
from namm_llm.summaries.request import GO_ON, JOIN, PART, WHOLE, Request, joined, so_far

Method = Literal["auto", "one-pass", "map-reduce", "refine"]
METHOD: Method = "auto"
LENGTH = "medium"
PART_TOKENS = 8192
OPTIONS = ("method", "length", "focus", "part_tokens")
_LEAST_TOKENS = 16  # a part with less text than this says nothing
_SPARE = 8  # a text's tokens can be a few more where it is read in pieces


@dataclass(frozen=True)
class Span:
    """A part of the text; see `Part`."""

    start: int
    stop: int
    tokens: int


@dataclass(frozen=True)
class Plan:
    """method: never `auto`. tokens: of the whole text. spans: its parts; white space that makes up
    a whole part is left out.
    """

    method: str
    tokens: int
    spans: tuple[Span, ...]


class Room:
    """What fits into one call of a model: a text, a prompt behind it, and the answer."""

    def __init__(self, runner: Runner, request: Request, params: SamplingParams) -> None:
        self._runner = runner
        self._request = request
        self.max_tokens = params.max_tokens

    def fits(self, text: str, prompt: str, reserve: int = 0) -> bool:
        """Whether the whole answer has room behind them, with so many tokens to spare."""
        positions = self._runner.context_window
        return positions is None or self._needed(text, prompt) + reserve <= positions

    def left(self, prompt: str, around: str = "") -> int | None:
        """Tokens that a text may have beside what stands around it; None for no limit."""
        positions = self._runner.context_window
        return None if positions is None else positions - self._needed(around, prompt)

    def _needed(self, text: str, prompt: str) -> int:
        return (
            self._runner.document_tokens(text, self._request.text(prompt))
            + self.max_tokens
            + _SPARE
        )


def check_options(
    *,
    method: str = METHOD,
    length: int | str = LENGTH,
    focus: str | None = None,
    part_tokens: int = PART_TOKENS,
) -> Request:
    """What the model is to be asked for. UsageError for wrong options; see `stream_summary`."""
    if method not in get_args(Method):
        raise UsageError(f"method must be one of {', '.join(get_args(Method))}, not {method!r}.")
    if not isinstance(part_tokens, int) or part_tokens < 1:
        raise UsageError(f"part_tokens must be a whole number from 1 on, not {part_tokens!r}.")
    return Request.of(length, focus)


def make_plan(runner: Runner, text: str, method: str, room: Room, part_tokens: int) -> Plan:
    """The plan for a text that is not empty. ContextError if the model has too few positions for
    it.
    """
    starts = runner.token_starts(text)
    whole = Plan("one-pass", len(starts), (Span(0, len(text), len(starts)),))
    if method == "one-pass" or (method == "auto" and room.fits(text, WHOLE)):
        if room.fits(text, WHOLE):
            return whole
        raise ContextError(
            f"the text has {len(starts)} tokens, and one pass of {runner.model_id} has {runner.context_window} positions for the text, the "
            f"request and an answer of up to {room.max_tokens}: summarize it in parts (map-reduce or refine)."
        )
    method = "map-reduce" if method == "auto" else method
    limit, fits = _limit(runner, method, room, part_tokens)
    parts = cut(text, starts, limit, fits)
    stops = list(accumulate(map(len, parts)))
    spans = [
        Span(stop - len(part), stop, len(runner.encode(part)))
        for part, stop in zip(parts, stops, strict=True)
        if part.strip()
    ]
    return Plan(method, len(starts), tuple(spans))


def _limit(
    runner: Runner, method: str, room: Room, part_tokens: int
) -> tuple[int, Callable[[str], bool]]:
    """Tokens that a part may have, and whether one fits into its call."""
    around, prompt, reserve = "", PART, 0
    if method == "refine":
        # the summary so far has as many tokens as an answer, and can have more when it is read
        around, prompt, reserve = so_far("", ""), GO_ON, 2 * room.max_tokens
    left = room.left(prompt, around)
    if left is not None:
        left -= reserve
        if method == "map-reduce" and not room.fits(joined(["", ""]), JOIN, 2 * room.max_tokens):
            left = 0  # two summaries must fit, or joining them would never end
        if left < _LEAST_TOKENS:
            raise ContextError(
                f"{runner.model_id} has {runner.context_window} positions, too few for a part of the text beside the request and answers "
                f"of up to {room.max_tokens} tokens ({method}): ask for a shorter length, or use a model with more positions."
            )
    limit = part_tokens if left is None else min(part_tokens, left)
    return (
        limit,
        lambda part: (
            len(runner.encode(part)) <= limit and room.fits(around + part, prompt, reserve)
        ),
    )


def groups(summaries: list[str], room: Room) -> list[list[str]]:
    """Neighbours that can be joined in one call, as few groups as that takes. ContextError if
    nothing can be joined.
    """
    found = [[summaries[0]]]
    for summary in summaries[1:]:
        if room.fits(joined([*found[-1], summary]), JOIN):
            found[-1].append(summary)
        else:
            found.append([summary])
    if len(found) == len(summaries):
        raise ContextError(
            f"the model has too few positions to join two of {len(summaries)} summaries: ask for a shorter length."
        )
    return found
