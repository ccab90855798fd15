"""The three ways to a summary. Each yields the pieces of the last answer, which is the summary, and
notes the summary of every part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from namm_llm.engine.results import OnProgress, Piece
from namm_llm.errors import ModelError
from namm_llm.summaries.calls import Calls
from namm_llm.summaries.plan import Plan, call_fits, groups
from namm_llm.summaries.request import GO_ON, JOIN, PART, WHOLE, joined, so_far


@dataclass
class Job:
    """A text on its way to a summary."""

    calls: Calls
    plan: Plan
    on_progress: OnProgress | None = None
    keep_last: bool = False
    """Whether the last answer goes into the work file too."""
    noted: list[str] = field(default_factory=list)
    """The summaries of the parts, in order, as they come; the last answer is not among them."""

    def pieces(self, parts: Sequence[str]) -> Iterator[Piece]:
        """The pieces of the summary. A text of one part is read in one pass, whatever the plan's
        method.
        """
        ways = {"map-reduce": map_reduce, "refine": refine}
        way = ways.get(self.plan.method, one_pass) if len(parts) > 1 else one_pass
        return way(self, parts)

    def read(self, part: int, tokens: int) -> None:
        """Tell that some tokens of a part are read, and all parts before it."""
        sizes = [span.tokens for span in self.plan.spans]
        if self.on_progress is not None and part < len(sizes):
            self.on_progress(sum(sizes[:part]) + min(tokens, sizes[part]), sum(sizes))

    def read_next(self, _: int, tokens: int) -> None:
        """Tell that some tokens of the first part without a summary are read."""
        self.read(len(self.noted), tokens)


def one_pass(job: Job, parts: Sequence[str]) -> Iterator[Piece]:
    """The whole text at once."""
    return job.calls.last(parts[0], WHOLE, job.read, keep=job.keep_last)


def map_reduce(job: Job, parts: Sequence[str]) -> Iterator[Piece]:
    """Each part on its own, then the summaries together, in as many levels as it takes for them to
    fit. Raises ModelError if the model writes nothing.
    """
    calls = job.calls
    job.noted += calls.many(parts, PART, job.read)
    summaries = _not_empty(job.noted, calls.runner.model_id)
    while not call_fits(calls, joined(summaries), JOIN):
        texts = [joined(group) for group in groups(calls, summaries)]
        summaries = _not_empty(calls.many(texts, JOIN), calls.runner.model_id)
    yield from calls.last(joined(summaries), JOIN, keep=job.keep_last)


def refine(job: Job, parts: Sequence[str]) -> Iterator[Piece]:
    """One part after the other, each with the summary of all that came before it."""
    job.noted += job.calls.many(parts[:1], PART, job.read)
    for part in parts[1:-1]:
        text = so_far(job.noted[-1], part)
        job.noted += job.calls.many([text], GO_ON, job.read_next)
    text = so_far(job.noted[-1], parts[-1])
    yield from job.calls.last(text, GO_ON, job.read_next, keep=job.keep_last)


def _not_empty(summaries: Sequence[str], model: str) -> list[str]:
    found = [text for text in summaries if text]
    if not found:
        raise ModelError(
            f"{model} wrote nothing about any part of the text; use a model that follows "
            "instructions."
        )
    return found
