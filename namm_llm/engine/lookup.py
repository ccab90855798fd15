"""Prompt lookup: several tokens from one call of the model, without a second model.

Answers quote the text that they are about. So the tokens that followed the newest ones where they
came before are guessed, and one call computes the logits after each of them (Saxena 2023,
https://github.com/apoorvumang/prompt-lookup-decoding; Leviathan et al., arXiv 2211.17192, for
verifying guesses). What the answer does not go on with leaves the window again: a guess never
reaches an eviction step, so tokens leave the cache when they would without guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from itertools import takewhile
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from namm_llm.cache import ManagedCache
from namm_llm.config import MOST_GUESSED
from namm_llm.models.loading import LoadedModel
from namm_llm.models.packed import rows_are_independent
from namm_llm.models.vision.tokens import is_picture

_LONGEST = 3
"""Newest tokens that are looked for."""
_USUAL = 8
"""Most tokens guessed at a time where nobody asked for a number."""
_ROW_COST = 0.25
"""Of one more token in a call of the model, where a call with one costs 1."""
_START = (0.0, 0.2, 0.4, 0.7)
"""Share of right guesses after matches of 0, 1, 2, 3 tokens, before there are any."""
_MEMORY = 0.1
"""Weight of the newest guess in the share of right ones."""
_NEAR_TIE = 1e-3
"""Of the largest logit: nearer ones could change places where calls round differently."""


class Rounding(Enum):
    """How far the logits of several tokens in one call are those of as many calls."""

    SAME = "same"
    """To the last bit."""
    CLOSE = "close"
    """But for the rounding of float32."""
    OTHER = "other"
    """Not near enough to promise the same answer."""


def rounding_of(loaded: LoadedModel) -> Rounding:
    """What can be promised of a model on the CPU; on a GPU nothing was tried."""
    model = loaded.model
    if loaded.device.type != "cpu":
        return Rounding.OTHER
    if rows_are_independent(model):
        return Rounding.SAME
    plain = all(weight.dtype is torch.float32 for weight in model.parameters())
    return Rounding.CLOSE if plain and loaded.quantization is None else Rounding.OTHER


class TokenText:
    """The tokens before an answer and of it, and what followed the newest ones before.

    ids: of document and prompt. count: tokens guessed at a time; None for as many as pay.
    """

    def __init__(self, ids: Sequence[int], count: int | None) -> None:
        words = (-1 if is_picture(id) else id for id in ids)  # no answer holds a picture
        self._ids = np.array([*words, *[0] * 256], dtype=np.int32)
        self._length = len(ids)
        self._count = count
        self._rates = list(_START)
        self._guess: tuple[int, int] | None = None  # length of the match, next token

    def add(self, token: int) -> None:
        """One more token of the answer; the last guess is learned from, tried or not."""
        if self._guess is not None:
            matched, guessed = self._guess
            self._rates[matched] += _MEMORY * ((guessed == token) - self._rates[matched])
        if self._length == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
        self._ids[self._length] = token
        self._length += 1

    def guess(self, most: int) -> list[int]:
        """At most `most` tokens that may come next; none where guessing does not pay."""
        matched, start = self._match()
        self._guess = (matched, int(self._ids[start])) if matched else None
        if not matched:
            return []
        count = self._count if self._count is not None else self._paying(matched)
        stop = min(start + min(count, most), self._length)
        guessed = self._ids[start:stop].tolist()
        return list(takewhile(lambda token: token >= 0, guessed))

    def follow(self, token: int) -> None:
        """`token` is guessed to be the next one, as part of a longer guess."""
        self._guess = (_LONGEST, token)

    def _match(self) -> tuple[int, int]:
        """Newest tokens that came before, as many as are looked for, and where they went on last;
        (0, 0) if they are new.
        """
        ids, newest = self._ids, self._length - 1
        found, matched = np.flatnonzero(ids[:newest] == ids[newest]), 0
        start = 0
        while len(found):
            matched, start = matched + 1, int(found[-1]) + 1
            if matched == _LONGEST or matched > newest:
                break
            found = found[found >= matched]
            found = found[ids[found - matched] == ids[newest - matched]]
        return matched, start

    def _paying(self, matched: int) -> int:
        """How many guesses give the most tokens for the time of a call."""
        first, later = self._rates[matched], max(self._rates[matched], self._rates[_LONGEST])
        best, found, tokens, chance = 1.0, 0, 1.0, first
        for count in range(1, _USUAL + 1):
            tokens += chance
            chance *= later
            if (gain := tokens / (1 + _ROW_COST * count)) > best:
                best, found = gain, count
        return found


class PlainSequences(Protocol):
    """The batch that takes the tokens; see `engine.decode.PlainBatch`."""

    @property
    def room(self) -> int: ...
    def enter(self, cache: ManagedCache, text: TokenText | None) -> None: ...
    def step(self, tokens: Tensor) -> Tensor: ...
    def steps(self, tokens: list[int]) -> Tensor: ...
    def take_back(self, count: int) -> None: ...
    def fetch(self, tokens: Tensor) -> Callable[[], list[int]]: ...
    def leave(self, row: int, *, without_last: bool = False) -> ManagedCache: ...


class LookupBatch:
    """A batch that guesses once a single answer is left in it; as of `engine.decode.Batch`.

    batch: takes the tokens. texts: of its rows; None for one that is not guessed.
    """

    runs_ahead = False

    def __init__(
        self, batch: PlainSequences, texts: Sequence[TokenText | None], rounding: Rounding
    ) -> None:
        self._batch = batch
        self._texts = list(texts)
        self._is_close = rounding is Rounding.CLOSE
        self._guessed: list[int] = []  # in the cache, behind the tokens that are sure
        self._logits: list[Tensor] = []  # after each of them
        self.fetch = batch.fetch

    def enter(self, cache: ManagedCache, text: TokenText | None) -> None:
        """As of `Batch`."""
        self._take_back(0)
        self._texts.append(text)
        self._batch.enter(cache, text)

    def step(self, tokens: Tensor) -> Tensor:
        """As of `Batch`: from the last call, if it guessed this token."""
        for text, token in zip(self._texts, tokens[:, 0].tolist(), strict=True):
            if text is not None:
                text.add(token)
        text = self._texts[0] if len(self._texts) == 1 else None
        if text is None:
            return self._batch.step(tokens)
        token = int(tokens)
        if self._guessed[:1] == [token]:
            del self._guessed[0]
        else:
            self._take_back(0)
            guessed = text.guess(max(0, min(self._batch.room, MOST_GUESSED + 1) - 1))
            if not guessed:
                return self._batch.step(tokens)
            self._guessed, self._logits = guessed, list(self._batch.steps([token, *guessed]))
        logits = self._logits.pop(0)
        if self._is_close and _is_near_tie(logits):
            self._take_back(1)
            return self._batch.step(tokens)
        if self._guessed:
            text.follow(self._guessed[0])
        return logits[None]

    def leave(self, row: int, *, without_last: bool = False) -> ManagedCache:
        """As of `Batch`."""
        self._take_back(0)
        del self._texts[row]
        return self._batch.leave(row, without_last=without_last)

    def _take_back(self, more: int) -> None:
        """Forget the guesses, and `more` tokens before them."""
        if self._guessed or more:
            self._batch.take_back(len(self._guessed) + more)
        self._guessed, self._logits = [], []


def _is_near_tie(logits: Tensor) -> bool:
    first, second = logits.topk(2).values.tolist()
    return bool(first - second <= _NEAR_TIE * max(abs(first), 1.0))
