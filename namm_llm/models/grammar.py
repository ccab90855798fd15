"""Answers that must follow a grammar: which tokens may come next, decided by llguidance
(https://github.com/guidance-ai/llguidance).

A `Constraint` belongs to one answer. With a JSON schema it also knows how the answer can be ended
soonest, and ends it so when the token limit comes near: such an answer is whole whenever
`max_tokens` is enough for the shortest one. Works on token ids; needs the extra `structured`.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from namm_llm.config import CONSTRAINTS, SamplingParams
from namm_llm.errors import UsageError
from namm_llm.models.schemas import closed, unenforced

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_LONGEST_END = 512  # tokens; a schema whose shortest answer is longer gets no promise
_ALLOWED = 200  # how llguidance marks a token that may come
_CLOSING = '}]",:'  # what ends a JSON value, or leads to its end
# what a form such as an e-mail address, a duration or a pattern may need, and then values
_LEADING = "ntfa@:./TZPDHMSWY0123456789-[{ zA"
# no free white space, in which small models loop; keywords that llguidance does not know are not
# enforced
_JSON_OPTIONS: Any = {"whitespace_flexible": False, "lenient": True}


@dataclass(frozen=True)
class _Ending:
    """The tokens that bring a JSON value to its end."""

    closing: list[int]
    """The first of these that may come, comes."""
    leading: list[int]
    """Where none of those may come: the first of these that came least often."""
    quote: int
    """Ends a text."""
    letter: int
    """May come nowhere but in a text."""


class Grammars:
    """Makes the constraints of one tokenizer.

    vocabulary: columns of the logits. Raises UsageError if the extra `structured` is missing.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, end_ids: frozenset[int]
    ) -> None:
        try:
            from llguidance.hf import from_tokenizer
        except ImportError as error:
            raise UsageError(
                "json_schema, regex and grammar need llguidance: "
                "pip install 'namm-llm[structured]'."
            ) from error
        fast: Any = tokenizer
        self._tokenizer: LLTokenizer = from_tokenizer(
            fast, n_vocab=vocabulary, eos_token=sorted(end_ids) or None
        )
        self._ending = _Ending(
            closing=[*sorted(end_ids), *(self._token(character) for character in _CLOSING)],
            leading=[self._token(character) for character in _LEADING],
            quote=self._token('"'),
            letter=self._token("z"),
        )

    def _token(self, character: str) -> int:
        return self._tokenizer.tokenize_str(character)[-1]  # some tokenizers put a space before it

    def constraint(self, params: SamplingParams) -> Constraint:
        """For an answer with these parameters, one of which is a json_schema, regex or grammar.
        UsageError if it has a mistake.
        """
        from llguidance import LLMatcher

        name = next(name for name in CONSTRAINTS if getattr(params, name) is not None)
        try:
            matcher = LLMatcher(self._tokenizer, _grammar(name, getattr(params, name)))
            problem = matcher.get_error() if matcher.is_error() else ""
        except ValueError as error:
            problem = str(error)
        if problem:
            raise UsageError(f"the {name} has a mistake: {' '.join(problem.split())}")
        return Constraint(matcher, self._ending if name == "json_schema" else None)


def _grammar(name: str, text: str) -> str:
    from llguidance import LLMatcher

    if name == "json_schema":
        options, schema = _JSON_OPTIONS, json.loads(text)
        if names := sorted(unenforced(schema)):
            warnings.warn(
                f"the answer is not held to {', '.join(names)} of the json_schema; check it.",
                stacklevel=2,
            )
        return str(LLMatcher.grammar_from_json_schema(closed(schema), defaults=options))
    return str(
        LLMatcher.grammar_from_regex(text) if name == "regex" else LLMatcher.grammar_from_lark(text)
    )


class Constraint:
    """What may come next in one answer.

    ending: how a value is ended soonest; None if the answer may be cut.
    """

    def __init__(self, matcher: LLMatcher, ending: _Ending | None) -> None:
        self._matcher = matcher
        self._ending = ending
        self._way_out = _way_out(matcher, ending)  # tokens that make the answer whole
        self.closed_early = False
        """Whether another token than the chosen one came, to end the answer in time."""

    @property
    def complete(self) -> bool:
        """Whether nothing but the end can follow."""
        return bool(self._matcher.is_stopped())

    def mask(self, logits: Tensor) -> Tensor:
        """The logits `[V]` with minus infinity at every token that may not come."""
        allowed = (
            torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)[
                : len(logits)
            ]
            > 0
        )
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))

    def take(self, token: int, left: int) -> int:
        """The token that really comes: the chosen one, or a way out if after it `left` - 1 tokens
        would not be enough.
        """
        if left > _LONGEST_END + 1:  # room for the longest way out
            self._matcher.consume_token(token)
            self._way_out = None
            return token
        after = self._matcher.deep_copy()
        after.consume_token(token)
        way_out = _way_out(after, self._ending)
        if self._way_out is not None and (way_out is None or len(way_out) >= left):
            self.closed_early |= token != self._way_out[0]
            token, *self._way_out = self._way_out
            self._matcher.consume_token(token)
        else:
            self._matcher, self._way_out = after, way_out
        return token


def _way_out(matcher: LLMatcher, ending: _Ending | None) -> list[int] | None:
    """Few tokens that make the answer whole; None if there is no short way or no `ending`."""
    if ending is None:
        return None
    matcher = matcher.deep_copy()
    found: list[int] = []
    came: Counter[int] = Counter()
    while not matcher.is_stopped():
        tokens = matcher.compute_ff_tokens()
        if not tokens:
            tokens = [_soonest(matcher.compute_logit_bias(), ending, came)]
            came.update(tokens)
        found += tokens
        if len(found) > _LONGEST_END or not matcher.consume_tokens(tokens):
            return None
    return found


def _soonest(allowed: bytes, ending: _Ending, came: Counter[int]) -> int:
    """The token that leads to the end; `came` counts those that were tried, because a form such as
    an address needs each of some characters once.
    """
    # in a text, a bracket is only a letter
    closing = [ending.quote] if allowed[ending.letter] else ending.closing
    if (token := next((token for token in closing if allowed[token]), None)) is not None:
        return token
    leading = [token for token in ending.leading if allowed[token]]
    return min(leading, key=came.__getitem__) if leading else allowed.find(_ALLOWED)
