"""A document and the questions about it."""

from __future__ import annotations

from dataclasses import dataclass

from namm_lab.tasks.metrics import METRICS


@dataclass(frozen=True)
class Question:
    """prompt: what is asked, after the document. answer: a right reply, word for word, to teach or
    to force. expected: what the metric looks for. metric: its name in `METRICS`. choices: of a
    classification. max_tokens: of the reply. first_line: judge no more of it.

    Without a prompt the document is plain text that `answer` goes on with, and the score is the
    answer's likelihood.
    """

    prompt: str
    answer: str
    expected: tuple[str, ...]
    metric: str = "exact"
    max_tokens: int = 48
    choices: tuple[str, ...] = ()
    first_line: bool = False

    @property
    def is_continuation(self) -> bool:
        """Whether nothing is asked: the text goes on."""
        return not self.prompt

    def score(self, reply: str) -> float:
        """From 0 to 1."""
        judged = reply.lstrip("\n").partition("\n")[0] if self.first_line else reply
        return METRICS[self.metric](judged, self.expected, self.choices)


@dataclass(frozen=True)
class Sample:
    """task: its name."""

    task: str
    document: str
    questions: tuple[Question, ...]
