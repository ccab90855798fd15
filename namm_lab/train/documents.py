"""Documents with questions as token ids: what a candidate is evaluated on, and what a NAMM learns
from.

Which texts they are made of is decided in `sample_source.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvalDocument:
    """A document that goes through a candidate's evicting cache, and questions whose right answers
    are known. Every question is asked of the document alone.
    """

    task: str
    """Name of its task."""
    document: tuple[int, ...]
    """Ids that are read first, at least 1."""
    questions: tuple[tuple[int, ...], ...]
    """Ids of each up to where its answer begins, at least 1 each."""
    answers: tuple[tuple[int, ...], ...]
    """Ids of each right answer, at least 1 each."""

    def __post_init__(self) -> None:
        assert self.document, "no document"
        assert self.questions, "no questions"
        assert all(self.questions), "a question without tokens"
        assert len(self.questions) == len(self.answers), "a question without an answer"
        assert all(self.answers), "an answer without tokens"


@dataclass(frozen=True)
class TrainDocument:
    """A document, and text that looks back at it: what a NAMM learns from."""

    document: list[int]
    """Token ids of the document."""
    queries: list[int]
    """Token ids of what comes afterwards: questions with their answers, or the document again."""
