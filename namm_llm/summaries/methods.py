"""The three ways to a summary. Each yields the pieces of the last answer, which is the summary, and
notes what it knew of every part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from namm_llm.engine.results import OnProgress, Piece
from namm_llm.summaries.calls import Calls, some, unseen
from namm_llm.summaries.plan import Plan, Room, groups
from namm_llm.summaries.request import GO_ON, JOIN, PART, WHOLE, Request, joined, so_far


@dataclass
class Job:
    """keep_last: whether the last answer goes into the work file too. noted: the summaries of the
    parts, in order, as they come; the last answer is not among them.
    """

    calls: Calls
    request: Request
    room: Room
    plan: Plan
    on_progress: OnProgress | None
    keep_last: bool
    noted: list[str] = field(default_factory=list)

    def read(self, part: int, tokens: int) -> None:
        """So many tokens of a part are read; all parts before it are."""
        spans = self.plan.spans
        if self.on_progress is not None and part < len(spans):
            before = sum(span.tokens for span in spans[:part])
            self.on_progress(
                before + min(tokens, spans[part].tokens), sum(span.tokens for span in spans)
            )

    def many(
        self, texts: Sequence[str], prompt: str, on_read: Callable[[int, int], None] = unseen
    ) -> list[str]:
        """The summaries of texts that are only a step on the way."""
        return self.calls.many(texts, self.request.text(prompt), on_read)

    def last(
        self, text: str, prompt: str, on_read: Callable[[int, int], None] = unseen
    ) -> Iterator[Piece]:
        """The pieces of the summary itself."""
        return self.calls.last(text, self.request.text(prompt), on_read, keep=self.keep_last)


def one_pass(job: Job, parts: Sequence[str]) -> Iterator[Piece]:
    """The whole text at once."""
    return job.last(parts[0], WHOLE, job.read)


def map_reduce(job: Job, parts: Sequence[str]) -> Iterator[Piece]:
    """Each part on its own, then the summaries together, in as many levels as it takes for them to
    fit.
    """
    job.noted += job.many(parts, PART, job.read)
    summaries = some(job.noted, job.calls.runner.model_id)
    while not job.room.fits(joined(summaries), JOIN):
        texts = [joined(group) for group in groups(summaries, job.room)]
        summaries = some(job.many(texts, JOIN), job.calls.runner.model_id)
    yield from job.last(joined(summaries), JOIN)


def refine(job: Job, parts: Sequence[str]) -> Iterator[Piece]:
    """One part after the other, each with the summary of all that came before it."""
    job.noted += job.many(parts[:1], PART, job.read)
    for part in parts[1:-1]:
        job.noted += job.many(
            [so_far(job.noted[-1], part)], GO_ON, lambda _, tokens: job.read(len(job.noted), tokens)
        )
    yield from job.last(
        so_far(job.noted[-1], parts[-1]), GO_ON, lambda _, tokens: job.read(len(job.noted), tokens)
    )


def way_of(plan: Plan) -> Callable[[Job, Sequence[str]], Iterator[Piece]]:
    """The method of a plan; a text that is a single part is read in one pass whatever was asked
    for.
    """
    ways = {"one-pass": one_pass, "map-reduce": map_reduce, "refine": refine}
    return one_pass if len(plan.spans) == 1 else ways[plan.method]
