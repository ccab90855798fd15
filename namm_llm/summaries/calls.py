"""The calls to the model that a summary is made of: each reads a text through the evicting cache
and answers a prompt about it.

An answer that the work file holds is taken from there. Every answer is kept for the totals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import perf_counter

from namm_llm.config import SamplingParams
from namm_llm.document import Document
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.results import Generation, Piece
from namm_llm.runner import Runner
from namm_llm.summaries.request import Request
from namm_llm.summaries.work import WorkFile, identity, key_of

BATCH = 4  # texts whose caches are held at once, to be decoded together

OnRead = Callable[[int, int], None]  # the number of a text, and how many of its tokens are read


class Cancelled(Exception):
    """The caller wants no more."""


def ignore(number: int, tokens: int) -> None:
    """An `OnRead` for texts that nobody counts."""


class Calls:
    """Answers of one model to the prompts of one request."""

    def __init__(
        self,
        runner: Runner,
        request: Request,
        params: SamplingParams,
        cancel: CancelFlag,
        work: WorkFile | None = None,
    ) -> None:
        self.runner = runner
        self.request = request
        self.params = params
        self.finished: list[Generation] = []
        """All answers, in order."""
        self.resumed = 0
        """How many of them the work file held."""
        self._cancel = cancel
        self._work = work
        self._identity = identity(runner, params) if work is not None else []

    def many(self, texts: Sequence[str], prompt: str, on_read: OnRead = ignore) -> list[str]:
        """The answers to one prompt about several texts, `BATCH` of them decoded together."""
        answers = list[Generation]()
        for first in range(0, len(texts), BATCH):
            answers += self._batch(first, texts[first : first + BATCH], prompt, on_read)
        return [_text_of(answer) for answer in answers]

    def last(
        self, text: str, prompt: str, on_read: OnRead = ignore, *, keep: bool = False
    ) -> Iterator[Piece]:
        """The pieces of one answer while it is written. keep: also in the work file."""
        if (kept := self._kept([text], prompt)) is not None:
            on_read(0, kept[0].usage.input_tokens)
            yield Piece(kept[0].text, ())
            return
        document, seconds = self._read(0, text, on_read)
        yield from self.about(document, prompt, seconds)
        if keep:
            self._keep([text], prompt, self.finished[-1:])

    def about(
        self, document: Document, prompt: str, read_seconds: float | None = None
    ) -> Iterator[Piece]:
        """The pieces of an answer about a document.

        read_seconds: what reading it took, if that was for this call alone.
        """
        asked = self.request.question(prompt, self.runner)
        with document.stream(asked, self.params, cancel=self._cancel) as stream:
            yield from stream
        answer = stream.result
        if read_seconds is not None:
            answer = _with_reading(answer, read_seconds, answer.timings.decode_seconds)
        self.finished.append(answer)
        self._check()

    def _batch(
        self, first: int, texts: Sequence[str], prompt: str, on_read: OnRead
    ) -> list[Generation]:
        if (kept := self._kept(texts, prompt)) is not None:
            on_read(first + len(kept) - 1, kept[-1].usage.input_tokens)
            return kept
        read = [self._read(number, text, on_read) for number, text in enumerate(texts, first)]
        documents, asked = (
            [document for document, _ in read],
            self.request.question(prompt, self.runner),
        )
        answers = self.runner.ask_each(documents, asked, self.params, cancel=self._cancel)
        # they were written together, so each takes its share of the time
        share = max(answer.timings.decode_seconds for answer in answers) / len(answers)
        answers = [
            _with_reading(answer, seconds, share)
            for answer, (_, seconds) in zip(answers, read, strict=True)
        ]
        self.finished += answers
        self._check()
        self._keep(texts, prompt, answers)
        return answers

    def _read(self, number: int, text: str, on_read: OnRead) -> tuple[Document, float]:
        start = perf_counter()

        def progress(done: int, total: int) -> None:
            self._check()  # what it raises ends the reading
            on_read(number, done)

        self._check()
        return self.runner.read(text, on_progress=progress), perf_counter() - start

    def _check(self) -> None:
        if self._cancel.is_set():
            raise Cancelled

    def _kept(self, texts: Sequence[str], prompt: str) -> list[Generation] | None:
        """The answers about all of these texts; a batch is answered as a whole or not at all, so
        that it is always the same batch.
        """
        if self._work is None:
            return None
        found = [self._work.get(key) for key in self._keys(texts, prompt)]
        kept = [answer for answer in found if answer is not None]
        if len(kept) < len(texts):
            return None
        self.finished += kept
        self.resumed += len(kept)
        return kept

    def _keep(self, texts: Sequence[str], prompt: str, answers: Sequence[Generation]) -> None:
        if self._work is not None:
            self._work.put(dict(zip(self._keys(texts, prompt), answers, strict=True)))

    def _keys(self, texts: Sequence[str], prompt: str) -> list[str]:
        asked = self.request.text(prompt)
        return [key_of(self._identity, text, asked) for text in texts]


def _text_of(answer: Generation) -> str:
    """An answer as it goes into the next prompt: what it repeats at its end is there once."""
    # a zero byte, which a model can write, would make the next text binary
    text = answer.text.replace("\0", "")
    if answer.looped:
        lengths = range(1, len(text) // 2 + 1)
        length = next((n for n in lengths if text[-2 * n : -n] == text[-n:]), 0)
        while length and text[-2 * length : -length] == text[-length:]:
            text = text[:-length]
    return text.strip()


def _with_reading(answer: Generation, read_seconds: float, decode_seconds: float) -> Generation:
    """The answer with the reading of its text counted as its own."""
    timings = replace(
        answer.timings,
        prefill_seconds=answer.timings.prefill_seconds + read_seconds,
        first_token_seconds=answer.timings.first_token_seconds + read_seconds,
        decode_seconds=decode_seconds,
    )
    return replace(answer, usage=replace(answer.usage, cached_tokens=0), timings=timings)
