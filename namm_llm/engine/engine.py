"""Answers requests with one model and one set of cache settings.

Everything here runs in the worker's thread, which owns the caches while they are written to. Token
ids come in; progress, pieces of text and results go out as events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from time import perf_counter

from torch import Tensor

from namm_llm.cache import ManagedCache
from namm_llm.config import CacheConfig
from namm_llm.engine.answer import Answer, Request
from namm_llm.engine.cancel import AnyOf, CancelFlag
from namm_llm.engine.decode import Batch, DecodeLoop, Decoding, PlainBatch, with_lookup
from namm_llm.engine.forward import prefill, tokens_seen
from namm_llm.engine.prefix import PrefixStore
from namm_llm.engine.reading import Reading, with_progress
from namm_llm.engine.repetition import end_text
from namm_llm.engine.results import Event, Progress, RowError, RowPiece, RowResult
from namm_llm.models.loading import LoadedModel
from namm_llm.models.prompt import PromptFormat
from namm_llm.policies.base import RECENT

BATCH = 16  # answers that are decoded together
_SHARED = 128  # tokens of a prompt that are read between two tokens of others' answers
Served = Event | RowError | None
Take = Callable[[int], list[tuple[int, Request]]]  # most requests; those that wait, with numbers


class Engine:
    """Reads prompts and documents, and writes answers.

    chunk: tokens of a prompt that go through the model at once. prefixes: caches to go on from.
    format: of prompts, with the ids of what was read. decoding: how answers are decoded.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        config: CacheConfig,
        *,
        chunk: int,
        prefixes: PrefixStore,
        format: PromptFormat,
        decoding: Decoding,
    ) -> None:
        self._loaded = loaded
        self._config = config
        self._chunk = chunk
        self._prefixes = prefixes
        self._format = format
        self._decoding = decoding
        self.reads_any_length = self._new_cache().reads_any_length
        """Whether a text may be longer than the positions that the model was trained on."""

    def _new_cache(self) -> ManagedCache:
        return ManagedCache.for_population(self._loaded.model, [self._config])

    # -- documents ---------------------------------------------------------------------------------

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
        self, cache: ManagedCache, ids: list[int], cancel: CancelFlag, *, text: list[int] | None
    ) -> Iterator[Progress | ManagedCache]:
        """Progress, then the cache after `ids`; at the end of the document it is evicted down to
        the budget.

        text: at the end, all ids of the document, which may be none unless the policy repeats it.
        """
        reading = prefill(self._loaded.model, cache, ids, chunk=self._chunk, cancel=cancel)
        yield from with_progress(reading, Progress(0, len(ids)))
        if text is not None and not cancel.is_set():
            yield from self._end(cache, text, cancel)
        if not cancel.is_set():
            yield cache

    def _end(
        self, cache: ManagedCache, ids: list[int], cancel: CancelFlag, row: int = 0
    ) -> Iterator[Progress]:
        """Evict the text `ids`; progress where it is repeated for that."""
        loaded = self._loaded
        repeating = end_text(
            loaded.model, cache, ids, self._format, positions=loaded.positions, cancel=cancel
        )
        for done in repeating:
            yield Progress(done, len(ids), row)

    # -- answers -----------------------------------------------------------------------------------

    def serve(self, take: Take, cancel: CancelFlag) -> Iterator[Served]:
        """Progress, pieces and results of all requests that `take` gives, until none is left.

        Requests enter and leave at any time. In turn, some tokens of prompts are read, and the
        answers in flight go on. Yields None after each turn, when the model is free for others.
        """
        waiting = _Prompts()
        loop = DecodeLoop(self._batch_of, self._loaded)
        for turn in count():
            waiting.add(take(BATCH - len(waiting) - len(loop.going)))
            if not waiting and not loop.going:
                return
            began = perf_counter()
            room = min(self._chunk, _SHARED) if loop.going else self._chunk
            yield from self._read(waiting, loop, room, cancel, oldest=turn % 2 == 1)
            spent = perf_counter() - began
            while loop.going:
                yield from self._write(loop, cancel)
                # half of the time is for those who are being answered
                if not waiting or perf_counter() - began >= 2 * spent:
                    break
            yield None

    def _read(
        self, waiting: _Prompts, loop: DecodeLoop, room: int, cancel: CancelFlag, *, oldest: bool
    ) -> Iterator[Event | RowError]:
        """Read at most `room` tokens of the prompts that wait; those that are whole enter the loop
        together.
        """
        entering, logits = list[Answer](), list[Tensor]()
        while waiting and room > 0:
            number, request = waiting.next(oldest=oldest)
            try:
                reading = waiting.begun.get(number)
                if reading is None:  # not sooner, so that it goes on from what was just read
                    stopped = AnyOf(cancel, request.cancel)
                    answer, model = self._begin(number, request), self._loaded.model
                    reading = Reading(answer, model, self._prefixes, stopped)
                    waiting.begun[number] = reading
                left = reading.left
                yield from reading.advance(room)
                room -= left - reading.left
                if reading.logits is not None:
                    yield from self._repeat(reading.answer, cancel)
            except Exception as error:  # of this prompt alone
                waiting.remove(number)
                yield RowError(number, error)
                continue
            if not reading.is_over:
                continue
            waiting.remove(number)
            if reading.logits is None or request.reads_only:
                reading.answer.end("cancelled" if reading.logits is None else "length")
                yield from self._finish(reading.answer)
            else:
                entering.append(reading.answer)
                logits.append(reading.logits)
        if entering:
            loop.enter(entering, logits)

    def _repeat(self, answer: Answer, cancel: CancelFlag) -> Iterator[Progress]:
        """Evict a whole prompt, where the policy repeats it for that."""
        request, cache = answer.request, answer.cache
        assert cache is not None
        if request.memory is not None or request.reads_only or not cache.config.policy.repeats:
            return
        ids = request.ids
        cache.protect([(max(0, len(ids) - RECENT), len(ids))])
        yield from self._end(cache, ids, AnyOf(cancel, request.cancel), answer.number)

    def _write(self, loop: DecodeLoop, cancel: CancelFlag) -> Iterator[RowPiece | RowResult]:
        """One token of each answer in flight."""
        for event in loop.step(cancel):
            if isinstance(event, Answer):
                yield from self._finish(event)
            else:
                yield event

    def _begin(self, number: int, request: Request) -> Answer:
        """The answer, with the cache that it goes on from."""
        reused = 0
        if request.memory is None:
            found = self._prefixes.continue_from(request.ids, request.owner)
            cache, reused = found or (self._new_cache(), 0)
        else:
            cache = request.memory.fork()
            start = request.memory_tokens
            cache.protect([(start, start + len(request.ids))])
        return Answer(request, self._loaded, cache, number=number, reused=reused)

    def _batch_of(self, answers: Sequence[Answer]) -> Batch:
        """The rows of these answers; their caches are used up."""
        caches = [answer.cache for answer in answers if answer.cache is not None]
        for answer in answers:
            answer.cache = None
        batch = self._decoding.batch(caches)
        return with_lookup(batch, answers, self._loaded) if isinstance(batch, PlainBatch) else batch

    def _finish(self, answer: Answer) -> Iterator[RowPiece | RowResult]:
        """The last events of an answer; its cache is kept to go on from, or freed."""
        request, cache = answer.request, answer.cache
        assert cache is not None
        if (rest := answer.flush()) is not None:
            yield RowPiece(answer.number, rest)
        if request.keeps and request.memory is None and self._prefixes.is_on:
            ids = (request.ids + answer.output)[: tokens_seen(cache)]
            self._prefixes.keep(ids, cache, request.owner)
            if request.text and not answer.is_cut:
                self._format.known.add(request.text, answer.text, request.ids + answer.text_tokens)
        result = RowResult(answer.number, answer.result())
        answer.cache = None
        yield result


class _Prompts:
    """The prompts that are not read yet, oldest first."""

    def __init__(self) -> None:
        self.begun: dict[int, Reading] = {}
        """Those of which some tokens were read, by their number."""
        self._waiting: dict[int, Request] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, requests: list[tuple[int, Request]]) -> None:
        """More prompts, with their numbers."""
        self._waiting.update(requests)

    def next(self, *, oldest: bool) -> tuple[int, Request]:
        """Which prompt to read now: the shortest or, so that none waits for ever, the oldest."""

        def left(number: int) -> int:
            begun = self.begun.get(number)
            return len(self._waiting[number].ids) if begun is None else begun.left

        number = next(iter(self._waiting)) if oldest else min(self._waiting, key=left)
        return number, self._waiting[number]

    def remove(self, number: int) -> None:
        """This one is read, or given up."""
        del self._waiting[number]
        self.begun.pop(number, None)
