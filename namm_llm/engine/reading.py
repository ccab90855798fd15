"""One prompt that is being read, some tokens at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from time import perf_counter

from torch import Tensor
from transformers import PreTrainedModel

from namm_llm.engine.answer import Answer
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.forward import prefill
from namm_llm.engine.prefix import PrefixStore
from namm_llm.engine.results import Progress


class Reading:
    """A prompt on its way into the cache of its answer.

    prefixes: where forks are kept at the borders that it names. cancel: ends the reading early.
    """

    def __init__(
        self, answer: Answer, model: PreTrainedModel, prefixes: PrefixStore, cancel: CancelFlag
    ) -> None:
        request = answer.request
        self.answer = answer
        self.logits: Tensor | None = None
        """`[V]` after the last token; None before, and for a prompt that was cancelled."""
        self._model = model
        self._prefixes = prefixes
        self._cancel = cancel
        self._done = answer.reused
        keeps = prefixes.is_on and request.memory is None
        borders = prefixes.borders(request.ids, self._done, request.owner) if keeps else []
        self._borders = [*borders, len(request.ids)]

    @property
    def left(self) -> int:
        """Tokens that are still to be read."""
        return len(self.answer.request.ids) - self._done

    @property
    def is_over(self) -> bool:
        """Whether all tokens are read, or the reading was cancelled."""
        return self.logits is not None or self._cancel.is_set()

    def advance(self, room: int) -> Iterator[Progress]:
        """Read at most `room` more tokens; progress after each call of the model."""
        began, answer = perf_counter(), self.answer
        ids, cache = answer.request.ids, answer.cache
        assert cache is not None
        while room > 0 and not self.is_over:
            size = min(room, self._borders[0] - self._done)
            part = ids[self._done : self._done + size]
            reading = prefill(self._model, cache, part, chunk=size, cancel=self._cancel)
            start = Progress(self._done, len(ids), answer.number)
            logits = yield from with_progress(reading, start)
            if logits is None:
                break
            self._done, room = self._done + size, room - size
            if self._done == len(ids):
                self.logits = logits
            elif self._done == self._borders[0]:
                del self._borders[0]
                self._prefixes.keep(ids[: self._done], cache.fork(), answer.request.owner)
        answer.prefill_seconds += perf_counter() - began


def with_progress(
    reading: Generator[int, None, Tensor | None], start: Progress
) -> Generator[Progress, None, Tensor | None]:
    """Progress after each chunk of a prefill; returns what the prefill returns."""
    while True:
        try:
            read = next(reading)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        yield Progress(start.done + read, start.total, start.row)
