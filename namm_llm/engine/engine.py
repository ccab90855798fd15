"""Answers requests with one model and one eviction setting. Everything here runs in the worker's
thread.

Token ids come in; progress, pieces and results go out as events. It owns the caches while they are
written to.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from time import perf_counter

import torch
from torch import Tensor

from namm_llm.cache import ManagedCache
from namm_llm.config import CacheConfig, SamplingParams
from namm_llm.engine.answer import AnswerText
from namm_llm.engine.cancel import AnyOf, CancelFlag
from namm_llm.engine.decode import decode
from namm_llm.engine.decoding import Decoding
from namm_llm.engine.forward import prefill, tokens_seen
from namm_llm.engine.prefix import PrefixStore
from namm_llm.engine.reply import Reply
from namm_llm.engine.results import Generation, Piece, Timings, Usage
from namm_llm.engine.sampling import Sampler
from namm_llm.models.grammar import Constraint
from namm_llm.models.loading import LoadedModel
from namm_llm.models.tokenization import TokenizationCache

BATCH = 16  # sequences that are decoded together
_SPAN = (
    64  # questions are protected in steps of so many tokens, so that most of them can share a batch
)


@dataclass(frozen=True)
class Request:
    """ids: what is to be read. memory: the cache of a document that `ids` follow; it is forked,
    never changed. constraint: what the answer must be; it serves this request alone. cancel: ends
    this answer alone. text: what `ids` were made of, if that was messages.
    """

    ids: list[int]
    params: SamplingParams
    memory: ManagedCache | None = None
    constraint: Constraint | None = None
    cancel: CancelFlag | None = None
    text: str = ""
    asked_at: float = field(default_factory=perf_counter)

    @property
    def memory_tokens(self) -> int:
        """Tokens before `ids`."""
        return 0 if self.memory is None else tokens_seen(self.memory)

    @property
    def question_span(self) -> int:
        """Tokens behind the document that are never evicted: the question, rounded up."""
        return 0 if self.memory is None else -(-len(self.ids) // _SPAN) * _SPAN


@dataclass(frozen=True)
class Progress:
    """Tokens that are read, of all that are to be read. row: the request that is read, where each
    has its own count.
    """

    done: int
    total: int
    row: int = 0


@dataclass(frozen=True)
class RowPiece:
    """A piece of the answer to the request with the number `row`."""

    row: int
    piece: Piece


@dataclass(frozen=True)
class RowResult:
    """The whole answer to the request with the number `row`."""

    row: int
    generation: Generation


Event = Progress | RowPiece | RowResult


@dataclass(eq=False)
class _Row:
    """One request on its way. reused: how many of its ids a kept prefix held. cache: until it joins
    the batch.
    """

    number: int
    request: Request
    reply: Reply
    text: AnswerText
    cache: ManagedCache | None
    reused: int
    prefill_seconds: float = 0.0
    first_at: float = 0.0
    last_at: float = 0.0

    def feed(self, token: int) -> Iterator[RowPiece]:
        """Take the next token of the answer."""
        self.last_at = perf_counter()
        self.first_at = self.first_at or self.last_at
        piece = self.text.feed(token)
        if piece is not None:
            yield RowPiece(self.number, piece)


class Engine:
    """chunk: tokens of a prompt that go through the model at once. prefixes: caches to go on from.
    known: the ids of their texts. decoding: how answers are decoded.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        eviction: CacheConfig,
        chunk: int,
        prefixes: PrefixStore,
        known: TokenizationCache,
        decoding: Decoding,
    ) -> None:
        self._loaded = loaded
        self._eviction = eviction
        self._chunk = chunk
        self._prefixes = prefixes
        self._known = known
        self._decoding = decoding
        cache = self._new_cache()
        self._can_batch = len(cache.managed) == len(
            cache.layers
        )  # transformers' own windows cannot be joined

    def _new_cache(self) -> ManagedCache:
        return ManagedCache.for_model(self._loaded.model, eviction=self._eviction)

    def begin(self, memory: ManagedCache | None, head: int) -> ManagedCache:
        """The cache that a document is read into: one that goes on from `memory`, or a new one
        whose first `head` tokens will stay.
        """
        if memory is not None:
            return memory.fork()
        cache = self._new_cache()
        if head:
            cache.protect([(0, head)])
        return cache

    def read(
        self, cache: ManagedCache, ids: list[int], cancel: CancelFlag, *, to_the_end: bool
    ) -> Iterator[Progress | ManagedCache]:
        """Progress, then the cache after `ids`; at the end of the document it is evicted down to
        the budget.
        """
        yield from _progress(
            prefill(self._loaded.model, cache, ids, chunk=self._chunk, cancel=cancel),
            0,
            0,
            len(ids),
        )
        if not cancel.is_set():
            if to_the_end:
                with torch.no_grad():
                    cache.settle()
            yield cache

    def read_ahead(self, request: Request, cancel: CancelFlag) -> Iterator[Event]:
        """Progress, then the result of an answer of no tokens; the cache is kept to go on from,
        also as far as it came when cancelled.
        """
        row = self._row(0, request)
        logits = yield from self._prefill(row, 0, len(request.ids), cancel)
        row.reply.finish_reason = "cancelled" if logits is None else "length"
        row.reply.cache, row.cache = row.cache, None
        yield from self._finish(row, keep=True)

    def answer(self, requests: list[Request], cancel: CancelFlag) -> Iterator[Event]:
        """Progress, pieces and results of all requests; those that can run together do."""
        total, done = sum(len(request.ids) for request in requests), 0
        for numbers in self._groups(requests):
            rows = [self._row(number, requests[number]) for number in numbers]
            logits = []
            for row in rows:
                logits.append((yield from self._prefill(row, done, total, cancel)))
                done += len(row.request.ids)
            yield from self._decode(rows, logits, cancel)
            for row in rows:
                yield from self._finish(row, keep=len(requests) == 1)

    def serve(
        self, first: Request, more: Callable[[Request], list[Request]], cancel: CancelFlag
    ) -> Iterator[Event]:
        """Events of `first` and of requests that come while prompts are read: `more(first)` gives
        those that can run beside it, once each.

        Rows are numbered as they come.
        """
        waiting, rows, logits = [first], list[_Row](), list[Tensor | None]()
        while waiting:
            row = self._row(len(rows), waiting.pop(0))
            rows.append(row)
            logits.append((yield from self._prefill(row, 0, len(row.request.ids), cancel)))
            if self._can_batch and len(rows) + len(waiting) < BATCH:
                waiting += more(first)
        yield from self._decode(rows, logits, cancel)
        for row in rows:
            yield from self._finish(row, keep=True)

    def _groups(self, requests: list[Request]) -> Iterator[list[int]]:
        """Numbers of the requests that run together. What is protected is a setting of the whole
        batch, so it must be the same.
        """

        def span(number: int) -> int:
            return requests[number].question_span

        size = BATCH if self._can_batch else 1
        for _, alike in groupby(sorted(range(len(requests)), key=span), key=span):
            numbers = list(alike)
            yield from (numbers[at : at + size] for at in range(0, len(numbers), size))

    def _row(self, number: int, request: Request) -> _Row:
        cache, reused = self._beginning(request)
        positions = self._loaded.positions
        room = request.params.max_tokens
        if positions is not None:
            room = min(room, positions - request.memory_tokens - len(request.ids))
        assert room >= 1, "the runner checks that a prompt fits"
        reply = Reply(
            request.ids,
            Sampler(request.params, request.ids),
            room,
            self._loaded.end_ids,
            request.constraint,
            request.cancel,
        )
        return _Row(
            number,
            request,
            reply,
            AnswerText(reply, self._loaded.backend, request.params.stop),
            cache,
            reused,
        )

    def _beginning(self, request: Request) -> tuple[ManagedCache, int]:
        """The cache that the request goes on from, and how many of its ids that holds."""
        if request.memory is None:
            return self._prefixes.continue_from(request.ids) or (self._new_cache(), 0)
        cache = request.memory.fork()
        start = request.memory_tokens
        cache.protect([(start, start + request.question_span)])
        return cache, 0

    def _prefill(
        self, row: _Row, done: int, total: int, cancel: CancelFlag
    ) -> Generator[Progress, None, Tensor | None]:
        start = perf_counter()
        assert row.cache is not None
        ids, logits = row.request.ids, None
        keeps = self._prefixes.is_on and row.request.memory is None
        borders = self._prefixes.borders(ids, row.reused) if keeps else []
        stopped = AnyOf(cancel, row.request.cancel)
        for first, stop in pairwise([row.reused, *borders, len(ids)]):
            reading = prefill(
                self._loaded.model, row.cache, ids[first:stop], chunk=self._chunk, cancel=stopped
            )
            logits = yield from _progress(reading, row.number, done + first, total)
            if logits is None:
                break
            if stop < len(ids):
                self._prefixes.keep(ids[:stop], row.cache.fork())
        row.prefill_seconds = perf_counter() - start
        return logits

    def _decode(
        self, rows: list[_Row], logits: list[Tensor | None], cancel: CancelFlag
    ) -> Iterator[RowPiece]:
        going, scores, caches = list[_Row](), list[Tensor](), list[ManagedCache]()
        for row, last in zip(rows, logits, strict=True):
            assert row.cache is not None
            if last is None:  # cancelled while its prompt was read
                row.reply.finish_reason, row.reply.cache = "cancelled", row.cache
            else:
                going.append(row)
                scores.append(last)
                caches.append(row.cache)
            row.cache = None
        if not going:
            return
        for at, token in decode(
            self._decoding.batch(caches), [row.reply for row in going], scores, cancel
        ):
            yield from going[at].feed(token)

    def _finish(self, row: _Row, *, keep: bool) -> Iterator[RowPiece | RowResult]:
        request, reply = row.request, row.reply
        assert reply.cache is not None
        assert reply.finish_reason is not None
        rest = row.text.finish()
        if rest is not None:
            yield RowPiece(row.number, rest)
        if keep and request.memory is None and self._prefixes.is_on:
            self._prefixes.keep(
                (request.ids + reply.output)[: tokens_seen(reply.cache)], reply.cache
            )
            if request.text and not row.text.is_cut:
                self._known.add(request.text, row.text.text, request.ids + reply.text_tokens)
        before = request.memory_tokens
        generation = Generation(
            text=row.text.text,
            finish_reason=reply.finish_reason,
            usage=Usage(before + len(request.ids), before + row.reused, len(reply.output)),
            timings=Timings(
                load_seconds=self._loaded.load_seconds,
                prefill_seconds=row.prefill_seconds,
                first_token_seconds=(row.first_at or perf_counter()) - request.asked_at,
                decode_seconds=row.last_at - row.first_at,
            ),
            cache=reply.cache.stats(),
            model=self._loaded.model_id,
        )
        yield RowResult(row.number, generation)


def _progress(
    reading: Generator[int, None, Tensor | None], row: int, done: int, total: int
) -> Generator[Progress, None, Tensor | None]:
    """Progress for each chunk of a prefill; returns what the prefill returns."""
    while True:
        try:
            read = next(reading)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        yield Progress(done + read, total, row)
