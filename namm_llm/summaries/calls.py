"""The calls to the model that a summary is made of: each reads a text through the evicting cache
and answers a request about it.

An answer that the work file holds is taken from there. Counts what is read and keeps every answer
for the totals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import perf_counter

from namm_llm.config import SamplingParams
from namm_llm.document import Document
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.results import Generation, Piece
from namm_llm.errors import ModelError
from namm_llm.runner import Runner
from namm_llm.summaries.work import WorkFile, identity, key_of

BATCH = 4  # texts whose caches are there at once, to be decoded together

OnRead = Callable[[int, int], None]  # the number of a text, and how many of its tokens are read
Memory = Document


class Cancelled(Exception):
    """The caller wants no more."""


def unseen(number: int, tokens: int) -> None:
    """An `OnRead` for texts that nobody counts."""


class Calls:
    """Answers about texts. finished: all of them, in order. resumed: how many of them the work file
    held.
    """

    def __init__(
        self, runner: Runner, params: SamplingParams, cancel: CancelFlag, work: WorkFile | None
    ) -> None:
        self.runner = runner
        self._params = params
        self._cancel = cancel
        self._work = work
        self._identity = identity(runner, params) if work is not None else []
        self.finished: list[Generation] = []
        self.resumed = 0

    def many(self, texts: Sequence[str], request: str, on_read: OnRead = unseen) -> list[str]:
        """The answers to one request about several texts, some of them decoded together."""
        answers = list[Generation]()
        for first in range(0, len(texts), BATCH):
            answers += self._batch(first, texts[first : first + BATCH], request, on_read)
        # a zero byte, which a model can write, would make the next text binary
        return [answer.text.replace("\0", "").strip() for answer in answers]

    def last(
        self, text: str, request: str, on_read: OnRead = unseen, *, keep: bool = False
    ) -> Iterator[Piece]:
        """The pieces of one answer while it is written. keep: also in the work file."""
        kept = self._kept([text], request)
        if kept is not None:
            on_read(0, kept[0].usage.input_tokens)
            yield Piece(kept[0].text, ())
            return
        memory, seconds = self._read(0, text, on_read)
        yield from self.about(memory, request, seconds)
        if keep:
            self._keep([text], request, self.finished[-1:])

    def about(
        self, memory: Memory, request: str, read_seconds: float | None = None
    ) -> Iterator[Piece]:
        """The pieces of an answer about a memory. read_seconds: what reading it took, if that was
        for this call alone.
        """
        with memory.stream(request, self._params, cancel=self._cancel) as stream:
            yield from stream
        answer = stream.result
        self.finished.append(
            answer
            if read_seconds is None
            else _with_reading(answer, read_seconds, answer.timings.decode_seconds)
        )
        self._check()

    def _batch(
        self, first: int, texts: Sequence[str], request: str, on_read: OnRead
    ) -> list[Generation]:
        kept = self._kept(texts, request)
        if kept is not None:
            on_read(first + len(kept) - 1, kept[-1].usage.input_tokens)
            return kept
        read = [self._read(number, text, on_read) for number, text in enumerate(texts, first)]
        answers = self.runner.ask_each(
            [memory for memory, _ in read], request, self._params, cancel=self._cancel
        )
        # they were written together, so each takes its share of the time
        share = max(answer.timings.decode_seconds for answer in answers) / len(answers)
        answers = [
            _with_reading(answer, seconds, share)
            for answer, (_, seconds) in zip(answers, read, strict=True)
        ]
        self.finished += answers
        self._check()
        self._keep(texts, request, answers)
        return answers

    def _read(self, number: int, text: str, on_read: OnRead) -> tuple[Memory, float]:
        start = perf_counter()

        def progress(done: int, total: int) -> None:
            self._check()  # what it raises ends the reading
            on_read(number, done)

        self._check()
        return self.runner.read(text, on_progress=progress), perf_counter() - start

    def _check(self) -> None:
        if self._cancel.is_set():
            raise Cancelled

    def _kept(self, texts: Sequence[str], request: str) -> list[Generation] | None:
        """The answers about all of these texts; a batch is answered as a whole or not at all, so
        that it is always the same batch.
        """
        if self._work is None:
            return None
        kept = [
            answer
            for text in texts
            if (answer := self._work.get(key_of(self._identity, text, request))) is not None
        ]
        if len(kept) < len(texts):
            return None
        self.finished += kept
        self.resumed += len(kept)
        return kept

    def _keep(self, texts: Sequence[str], request: str, answers: Sequence[Generation]) -> None:
        if self._work is not None:
            keys = [key_of(self._identity, text, request) for text in texts]
            self._work.put(dict(zip(keys, answers, strict=True)))


def some(texts: Sequence[str], model: str) -> list[str]:
    """The summaries that say something. ModelError if none does."""
    said = [text for text in texts if text]
    if not said:
        raise ModelError(
            f"{model} wrote nothing about any part of the text; use a model that follows instructions."
        )
    return said


def _with_reading(answer: Generation, read_seconds: float, decode_seconds: float) -> Generation:
    """The answer with the reading of its text counted as its own."""
    timings = replace(
        answer.timings,
        prefill_seconds=answer.timings.prefill_seconds + read_seconds,
        first_token_seconds=answer.timings.first_token_seconds + read_seconds,
        decode_seconds=decode_seconds,
    )
    return replace(answer, usage=replace(answer.usage, cached_tokens=0), timings=timings)
