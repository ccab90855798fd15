"""What a candidate is examined on: a document that goes through its evicting cache, and questions
whose right answers are known.

Token ids only; which texts they are made of is decided in `drawing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exam:
    """task: its name. document: ids that are read first, at least 1. questions: ids of each, up to
    where its answer begins, at least 1 each. answers: ids of each right answer, at least 1 each.
    Every question is asked of the document alone.
    """

    task: str
    document: tuple[int, ...]
    questions: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        assert self.document, "an exam without a document"
        assert self.questions, "an exam without questions"
        assert all(self.questions), "a question without tokens"
        assert len(self.questions) == len(self.answers), "a question without an answer"
        assert all(self.answers), "an answer without tokens"
