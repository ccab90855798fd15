"""How a text is to be summarized, decided before anything is computed: which method, and which
parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

from namm_llm.errors import ContextError, UsageError
from namm_llm.summaries.calls import Calls
from namm_llm.summaries.parts import cut
from namm_llm.summaries.request import GO_ON, JOIN, PART, WHOLE, Request, joined, so_far

Method = Literal["auto", "one-pass", "map-reduce", "refine"]
METHOD: Method = "auto"
LENGTH = "medium"
PART_TOKENS = 8192
OPTIONS = ("method", "length", "focus", "part_tokens")
_LEAST_TOKENS = 16  # a part with less text than this says nothing
_SPARE = 8  # a text can have a few tokens more where it is read in pieces


@dataclass(frozen=True)
class Span:
    """Where a part of the text is; see `Part`."""

    start: int
    stop: int
    tokens: int


@dataclass(frozen=True)
class Plan:
    """The method, and the parts that the text is cut into."""

    method: str
    """Never `auto`."""
    tokens: int
    """Of the whole text."""
    spans: tuple[Span, ...]
    """The parts; white space that makes up a whole part is left out."""


def check_options(
    *,
    method: str = METHOD,
    length: int | str = LENGTH,
    focus: str | None = None,
    part_tokens: int = PART_TOKENS,
) -> Request:
    """What the model is to be asked for. Raises UsageError for wrong options; see
    `stream_summary`.
    """
    if method not in get_args(Method):
        raise UsageError(f"method must be one of {', '.join(get_args(Method))}, not {method!r}.")
    if not isinstance(part_tokens, int) or part_tokens < 1:
        raise UsageError(f"part_tokens must be a whole number from 1 on, not {part_tokens!r}.")
    return Request.of(length, focus)


def make_plan(calls: Calls, text: str, method: str, part_tokens: int) -> Plan:
    """The plan for a text that is not empty.

    Raises ContextError if the model has too few positions for it.
    """
    runner = calls.runner
    starts = runner.token_starts(text)
    if method in ("one-pass", "auto"):
        if call_fits(calls, text, WHOLE) or (
            method == "one-pass" and runner.session.reads_any_length
        ):
            return Plan("one-pass", len(starts), (Span(0, len(text), len(starts)),))
        if method == "one-pass":
            raise ContextError(
                f"the text has {len(starts)} tokens, and one pass of {runner.model_id} has "
                f"{runner.context_window} positions for the text, the request and an answer of up "
                f"to {calls.params.max_tokens}: summarize it in parts (map-reduce or refine), or "
                "give a budget in tokens or bytes."
            )
        method = "map-reduce"
    parts = _parts(calls, text, starts, method, part_tokens)
    stops = list(accumulate(map(len, parts)))
    spans = [
        Span(stop - len(part), stop, len(runner.encode(part)))
        for part, stop in zip(parts, stops, strict=True)
        if part.strip()
    ]
    return Plan(method, len(starts), tuple(spans))


def call_fits(calls: Calls, text: str, prompt: str, reserve: int = 0) -> bool:
    """Whether a text, a prompt and the whole answer fit into the trained positions, with so many to
    spare.
    """
    left = _left(calls, text, prompt)
    return left is None or left >= reserve


def groups(calls: Calls, summaries: list[str]) -> list[list[str]]:
    """Neighbours that can be joined in one call, as few groups as that takes.

    Raises ContextError if no two can be joined.
    """
    found = [[summaries[0]]]
    for summary in summaries[1:]:
        if call_fits(calls, joined([*found[-1], summary]), JOIN):
            found[-1].append(summary)
        else:
            found.append([summary])
    if len(found) == len(summaries):
        raise ContextError(
            f"the model has too few positions to join two of {len(summaries)} summaries: ask for a "
            "shorter length."
        )
    return found


def _left(calls: Calls, text: str, prompt: str) -> int | None:
    """Trained positions that a call leaves; None for a model without a limit."""
    positions = calls.runner.context_window
    if positions is None:
        return None
    asked = calls.request.question(prompt, calls.runner)
    needed = calls.runner.document_tokens(text, asked) + calls.params.max_tokens + _SPARE
    return positions - needed


def _parts(calls: Calls, text: str, starts: list[int], method: str, part_tokens: int) -> list[str]:
    around, prompt, reserve, answer = "", PART, 0, calls.params.max_tokens
    if method == "refine":
        # the summary so far has as many tokens as an answer, and can have more when it is read
        around, prompt, reserve = so_far("", ""), GO_ON, 2 * answer
    left = _left(calls, around, prompt)
    limit = part_tokens if left is None else min(part_tokens, left - reserve)
    # two summaries must fit, or joining them would never end
    joins = method == "refine" or call_fits(calls, joined(["", ""]), JOIN, 2 * answer)
    if left is not None and (left - reserve < _LEAST_TOKENS or not joins):
        raise ContextError(
            f"{calls.runner.model_id} has {calls.runner.context_window} positions, too few for a "
            f"part of the text beside the request and answers of up to {answer} tokens ({method}): "
            "ask for a shorter length, or use a model with more positions."
        )

    def fits(part: str) -> bool:
        is_small = len(calls.runner.encode(part)) <= limit
        return is_small and call_fits(calls, around + part, prompt, reserve)

    return cut(text, starts, limit, fits)
