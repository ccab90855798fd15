"""Answers requests with one model and one eviction setting. Everything here runs in the worker's thread.

Token ids come in; progress, pieces and results go out as events. It owns the caches while they are written to.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from namm_llm.cache import ManagedCache
from namm_llm.policies import Eviction
from namm_llm.runner.answer import AnswerText
from namm_llm.runner.generation import Reply, decode, prefill, tokens_seen
from namm_llm.runner.loading import LoadedModel
from namm_llm.runner.prefix import PrefixStore
from namm_llm.runner.results import Generation, Piece, Timings, Usage
from namm_llm.runner.sampling import Sampler, SamplingParams
from namm_llm.runner.stopping import CancelFlag

BATCH = 16  # sequences that are decoded together
_SPAN = 64  # questions are protected in steps of so many tokens, so that most of them can share a batch


@dataclass(frozen=True)
class Request:
    """ids: what is to be read. memory: a document read before, which `ids` follow; never changed. asked_at: when, on the clock of `time`."""

    ids: list[int]
    params: SamplingParams
    asked_at: float
    memory: ManagedCache | None = None

    @property
    def question_span(self) -> int:
        """Tokens behind the document that are never evicted: the question, rounded up."""
        return 0 if self.memory is None else -(-len(self.ids) // _SPAN) * _SPAN


@dataclass(frozen=True)
class Progress:
    """Tokens of the prompts that are read, of all that are to be read."""

    done: int
    total: int


@dataclass(frozen=True)
class RowPiece:
    """A piece of the answer to request `row`."""

    row: int
    piece: Piece


@dataclass(frozen=True)
class RowResult:
    """The whole answer to request `row`."""

    row: int
    generation: Generation


Event = Progress | RowPiece | RowResult


@dataclass(eq=False)
class _Row:
    """One request on its way. cached: tokens that need not be read again."""

    number: int
    request: Request
    cache: ManagedCache
    cached: int
    reply: Reply
    text: AnswerText
    prefill_seconds: float = 0.0
    first_token_at: float | None = None
    done: bool = False


class Engine:
    """chunk: tokens of a prompt that go through the model at once. prefixes: caches to go on from."""

    def __init__(self, loaded: LoadedModel, eviction: Eviction, chunk: int, prefixes: PrefixStore) -> None:
        self.loaded = loaded
        self.eviction = eviction
        self._chunk = chunk
        self._prefixes = prefixes
        # windows of transformers' own cannot be joined into a batch
        self._can_batch = len((cache := self._new_cache()).managed) == len(cache.layers)

    def _new_cache(self) -> ManagedCache:
        return ManagedCache.for_model(self.loaded.model, eviction=self.eviction)

    def read(self, ids: list[int], head: int, cancel: CancelFlag) -> Iterator[Progress | ManagedCache]:
        """Progress, then the cache after reading `ids`, evicted down to the budget; the first `head` tokens are never evicted."""
        cache = self._new_cache()
        if head:
            cache.protect([(0, head)])
        for done in prefill(self.loaded.model, cache, ids, chunk=self._chunk, cancel=cancel):
            yield Progress(done, len(ids))
        if not cancel.is_set():
            with torch.no_grad():
                cache.settle()
            yield cache

    def answer(self, requests: list[Request], cancel: CancelFlag) -> Iterator[Event]:
        """Progress, pieces and results of all requests; those that can run together do."""
        total, done = sum(len(request.ids) for request in requests), 0
        for group in self._groups(requests):
            rows = []
            for number in group:
                row = self._row(number, requests[number])
                rows.append(row)
                yield from self._announce(row, done, total)
                done += len(row.request.ids)
            yield from self._answer(rows, done, total, cancel)

    def _groups(self, requests: list[Request]) -> Iterator[list[int]]:
        def span(number: int) -> int:
            return requests[number].question_span

        size = BATCH if self._can_batch else 1
        for _, alike in groupby(sorted(range(len(requests)), key=span), key=span):
            numbers = list(alike)
            yield from (numbers[at : at + size] for at in range(0, len(numbers), size))
