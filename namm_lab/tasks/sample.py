"""A document and the questions about it."""

from __future__ import annotations

from dataclasses import dataclass

from namm_lab.tasks.metrics import METRICS


@dataclass(frozen=True)
class Question:
    """A question about a document, and how a reply to it is scored.

    Without a prompt the document is plain text that `answer` continues, and the score is the
    answer's likelihood.
    """

    prompt: str
    """What is asked, after the document."""
    answer: str
    """A right reply, word for word, to teach or to force."""
    expected: tuple[str, ...]
    """What the metric looks for."""
    metric: str = "exact"
    """Its name in `METRICS`."""
    max_tokens: int = 48
    """Of the reply."""
    choices: tuple[str, ...] = ()
    """Of a classification."""
    first_line: bool = False
    """Whether only the reply's first line is scored."""

    @property
    def is_continuation(self) -> bool:
        """Whether nothing is asked: the text goes on."""
        return not self.prompt

    def score(self, reply: str) -> float:
        """From 0 to 1."""
        scored = reply.lstrip("\n").partition("\n")[0] if self.first_line else reply
        return METRICS[self.metric](scored, self.expected, self.choices)


@dataclass(frozen=True)
class Sample:
    """A document with questions about it."""

    task: str
    """Name of its task."""
    document: str
    questions: tuple[Question, ...]
