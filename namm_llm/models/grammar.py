"""Answers that must follow a grammar: which tokens may come next, decided by llguidance
(https://github.com/guidance-ai/llguidance).

A `Constraint` belongs to one answer. With a JSON schema it also knows how the answer can be ended
soonest, and ends it so when the token limit comes near: such an answer is whole whenever
`max_tokens` is enough for the shortest one. Works on token ids; needs the extra `structured`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from namm_llm.engine.sampling import CONSTRAINTS, SamplingParams
from namm_llm.errors import UsageError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_LONGEST_END = 512  # tokens; a schema whose shortest answer is longer gets no promise
_ALLOWED = 200  # how llguidance marks a token that may come
_ENDING = '}]",:ntf0123456789-.[{'  # what ends a JSON value soonest comes first
# no free white space, in which small models loop; keywords that llguidance does not know are not
# enforced
_JSON_OPTIONS: dict[str, Any] = {"whitespace_flexible": False, "lenient": True}


@dataclass(frozen=True)
class _Ending:
    """Tokens. order: those that end a JSON value, soonest first. quote, letter: both may come only
    within a text.
    """

    order: list[int]
    quote: int
    letter: int


class Grammars:
    """Makes the constraints of one tokenizer. vocabulary: columns of the logits."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, end_ids: frozenset[int]
    ) -> None:
        try:
            from llguidance.hf import from_tokenizer
        except ImportError as error:
            raise UsageError(
                "json_schema, regex and grammar need llguidance: pip install 'namm-llm[structured]'"
            ) from error
        fast: Any = tokenizer
        self._tokenizer: LLTokenizer = from_tokenizer(
            fast, n_vocab=vocabulary, eos_token=sorted(end_ids) or None
        )
        self._ending = _Ending(
            order=[*sorted(end_ids), *(self._token(character) for character in _ENDING)],
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
        options: Any = _JSON_OPTIONS
        return str(LLMatcher.grammar_from_json_schema(_closed(json.loads(text)), defaults=options))
    return str(
        LLMatcher.grammar_from_regex(text) if name == "regex" else LLMatcher.grammar_from_lark(text)
    )


def _closed(schema: Any) -> Any:
    """The schema, in which an object that names its properties has no others unless it says so:
    nobody asks a model for surprises.
    """
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: value if key in ("const", "enum", "default") else _closed(value)
        for key, value in schema.items()
    }
    return (
        {"additionalProperties": False, **closed}
        if isinstance(schema.get("properties"), dict)
        else closed
    )


class Constraint:
    """What may come next in one answer. ending: how a value is ended soonest; None if the answer
    may be cut.
    """

    def __init__(self, matcher: LLMatcher, ending: _Ending | None) -> None:
        self._matcher = matcher
        self._ending = ending
        self._way_out = _way_out(matcher, ending)  # tokens that make the answer whole

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
            token, *self._way_out = self._way_out
            self._matcher.consume_token(token)
        else:
            self._matcher, self._way_out = after, way_out
        return token


def _way_out(matcher: LLMatcher, ending: _Ending | None) -> list[int] | None:
    """Few tokens that make the answer whole; None if there is no short way, or none is looked for."""
    if ending is None:
        return None
    matcher = matcher.deep_copy()
    found: list[int] = []
    while not matcher.is_stopped():
        tokens = matcher.compute_ff_tokens() or [_soonest(matcher.compute_logit_bias(), ending)]
        found += tokens
        if len(found) > _LONGEST_END or not matcher.consume_tokens(tokens):
            return None
    return found


def _soonest(allowed: bytes, ending: _Ending) -> int:
    in_text = all(
        allowed[token] for token in (ending.quote, ending.letter)
    )  # there, a bracket is only a letter
    first = [ending.quote] if in_text else ending.order
    return next((token for token in first if allowed[token]), allowed.find(_ALLOWED))
