"""A summary while it is written: an iterator over its pieces, with the whole result at its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import perf_counter

from namm_llm.engine.results import FinishReason, Piece
from namm_llm.errors import UsageError
from namm_llm.summaries.calls import Cancelled
from namm_llm.summaries.methods import Job
from namm_llm.summaries.plan import Plan
from namm_llm.summaries.summary import Part, Summary, largest_cache, total_timings, total_usage
from namm_llm.summaries.work import WorkFile


class SummaryStream:
    """The pieces of a summary, to be iterated over; then `result` is the `Summary`.

    The parts of a long text are summarized when the first piece is asked for. Closing it stops the
    model within one token; what is in the work file stays there.
    """

    def __init__(
        self,
        job: Job,
        pieces: Iterator[Piece],
        stopped: threading.Event,
        work: WorkFile | None = None,
        *,
        is_own: bool = True,
    ) -> None:
        """stopped: ends the calls. is_own: `work` is removed when the summary is whole."""
        self.plan: Plan = job.plan
        """Known at once: the method, and the parts that the text is cut into."""
        self.work = work
        """The file that keeps finished answers."""
        self._job = job
        self._stopped = stopped
        self._is_own = is_own
        self._pieces = self._watched(pieces)
        self._result: Summary | None = None

    def __iter__(self) -> SummaryStream:
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

    @property
    def result(self) -> Summary:
        """The whole summary, once all pieces have been read; one that was cancelled has what there
        was. Raises UsageError before.
        """
        if self._result is None:
            raise UsageError(
                "the summary is not whole: read the stream to its end before asking for its result."
            )
        return self._result

    def close(self) -> None:
        """Stop the model; any thread may call this."""
        self._stopped.set()

    def __enter__(self) -> SummaryStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _watched(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        start, first, texts = perf_counter(), 0.0, list[str]()
        try:
            for piece in pieces:
                first = first or perf_counter()
                texts.append(piece.text)
                yield piece
            reason = self._job.calls.finished[-1].finish_reason
        except Cancelled:
            reason = "cancelled"
        self._result = self._summary("".join(texts), reason, (first or perf_counter()) - start)
        if self.work is not None and self._is_own and reason != "cancelled":
            self.work.remove()

    def _summary(self, text: str, reason: FinishReason, first_token_seconds: float) -> Summary:
        calls, spans = self._job.calls, self.plan.spans
        loaded, finished = calls.runner.loaded, calls.finished
        summaries = [*self._job.noted, text][: len(spans)]
        summaries += [""] * (len(spans) - len(summaries))
        return Summary(
            text=text,
            finish_reason=reason,
            looped=bool(finished) and finished[-1].looped,
            method=self.plan.method,
            parts=tuple(
                Part(span.start, span.stop, span.tokens, part)
                for span, part in zip(spans, summaries, strict=True)
            ),
            calls=len(finished),
            cut_calls=sum(answer.finish_reason == "length" for answer in finished),
            resumed=calls.resumed,
            usage=total_usage(finished),
            timings=total_timings(finished, loaded.load_seconds, first_token_seconds),
            cache=largest_cache(finished, calls.runner.config.describe()),
            model=calls.runner.model_id,
        )
