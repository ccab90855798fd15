"""Answers requests with one model and one set of cache settings.

Everything here runs in the worker's thread, which owns the caches while they are written to. Token
ids come in; progress, pieces of text and results go out as events.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from itertools import groupby, pairwise
from time import perf_counter

from torch import Tensor

from namm_llm.cache import ManagedCache
from namm_llm.config import CacheConfig
from namm_llm.engine.answer import Answer, Request
from namm_llm.engine.cancel import AnyOf, CancelFlag
from namm_llm.engine.decode import Decoding, PlainBatch, decode, with_lookup
from namm_llm.engine.forward import prefill, tokens_seen
from namm_llm.engine.prefix import PrefixStore
from namm_llm.engine.repetition import end_text
from namm_llm.engine.results import Event, Progress, RowPiece, RowResult
from namm_llm.models.loading import LoadedModel
from namm_llm.models.prompt import PromptFormat
from namm_llm.policies.base import RECENT

BATCH = 16  # answers that are decoded together
More = Callable[[Request], list[Request]]


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
        yield from _progress(reading, Progress(0, len(ids)))
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

    def answer(
        self, requests: list[Request], cancel: CancelFlag, more: More | None = None
    ) -> Iterator[Event]:
        """Progress, pieces and results of all requests; those that can run together do.

        more: asked while prompts are read for requests that came meanwhile and can run beside the
        first one; their numbers follow those of `requests`. The caches of single requests are kept
        to go on from, also as far as they came when cancelled.
        """
        keep = more is not None or len(requests) == 1
        for numbers in self._groups(requests):
            waiting = [requests[number] for number in numbers]
            first, answers, logits = waiting[0], list[Answer](), list[Tensor | None]()
            while waiting:
                number = numbers[len(answers)] if more is None else len(answers)
                answers.append(self._begin(number, waiting.pop(0)))
                logits.append((yield from self._prefill(answers[-1], cancel)))
                if more is not None and len(answers) + len(waiting) < BATCH:
                    waiting += more(first)
            yield from self._write(answers, logits, cancel, keep=keep)

    def _groups(self, requests: list[Request]) -> Iterator[list[int]]:
        """Numbers of the requests that run together. What is protected is a setting of the whole
        batch, so it must be the same.
        """

        def span(number: int) -> int:
            return requests[number].question_span

        for _, alike in groupby(sorted(range(len(requests)), key=span), key=span):
            numbers = list(alike)
            yield from (numbers[start : start + BATCH] for start in range(0, len(numbers), BATCH))

    def _begin(self, number: int, request: Request) -> Answer:
        """The answer, with the cache that it goes on from."""
        reused = 0
        if request.memory is None:
            cache, reused = self._prefixes.continue_from(request.ids, request.owner) or (
                self._new_cache(),
                0,
            )
        else:
            cache = request.memory.fork()
            start = request.memory_tokens
            cache.protect([(start, start + request.question_span)])
        return Answer(request, self._loaded, cache, number=number, reused=reused)

    def _prefill(
        self, answer: Answer, cancel: CancelFlag
    ) -> Generator[Progress, None, Tensor | None]:
        """Progress; returns the logits after the prompt, None if cancelled."""
        start, request, cache = perf_counter(), answer.request, answer.cache
        assert cache is not None
        ids, logits = request.ids, None
        keeps = self._prefixes.is_on and request.memory is None
        borders = self._prefixes.borders(ids, answer.reused, request.owner) if keeps else []
        stopped = AnyOf(cancel, request.cancel)
        for first, stop in pairwise([answer.reused, *borders, len(ids)]):
            part = ids[first:stop]
            reading = prefill(self._loaded.model, cache, part, chunk=self._chunk, cancel=stopped)
            logits = yield from _progress(reading, Progress(first, len(ids), answer.number))
            if logits is None:
                break
            if stop < len(ids):
                self._prefixes.keep(ids[:stop], cache.fork(), request.owner)
        is_whole = logits is not None and request.memory is None and not request.reads_only
        if is_whole and cache.config.policy.repeats:
            cache.protect([(max(0, len(ids) - RECENT), len(ids))])
            yield from self._end(cache, ids, stopped, answer.number)
        answer.prefill_seconds = perf_counter() - start
        return logits

    def _write(
        self, answers: list[Answer], logits: list[Tensor | None], cancel: CancelFlag, *, keep: bool
    ) -> Iterator[RowPiece | RowResult]:
        """Pieces and results; an answer that was cancelled, or only read, has no text."""
        going, scores, caches = list[Answer](), list[Tensor](), list[ManagedCache]()
        for answer, last in zip(answers, logits, strict=True):
            if last is None or answer.request.reads_only:
                answer.end("cancelled" if last is None else "length")
                yield from self._finish(answer, keep=keep)
                continue
            assert answer.cache is not None
            going.append(answer)
            scores.append(last)
            caches.append(answer.cache)
            answer.cache = None
        if not going:
            return
        batch = self._decoding.batch(caches)
        if isinstance(batch, PlainBatch):
            batch = with_lookup(batch, going, self._loaded)
        for event in decode(batch, going, scores, cancel):
            if isinstance(event, Answer):
                yield from self._finish(event, keep=keep)
            else:
                yield event

    def _finish(self, answer: Answer, *, keep: bool) -> Iterator[RowPiece | RowResult]:
        """The last events of an answer; its cache is kept to go on from, or freed."""
        request, cache = answer.request, answer.cache
        assert cache is not None
        if (rest := answer.flush()) is not None:
            yield RowPiece(answer.number, rest)
        if keep and request.memory is None and self._prefixes.is_on:
            ids = (request.ids + answer.output)[: tokens_seen(cache)]
            self._prefixes.keep(ids, cache, request.owner)
            if request.text and not answer.is_cut:
                self._format.known.add(request.text, answer.text, request.ids + answer.text_tokens)
        result = RowResult(answer.number, answer.result())
        answer.cache = None
        yield result


def _progress(
    reading: Generator[int, None, Tensor | None], start: Progress
) -> Generator[Progress, None, Tensor | None]:
    """Progress after each chunk of a prefill; returns what the prefill returns."""
    while True:
        try:
            read = next(reading)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        yield Progress(start.done + read, start.total, start.row)
