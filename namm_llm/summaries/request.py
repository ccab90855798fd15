"""What the model is asked for. Every prompt of a summary is here; it stands behind the text, as the
user's words in the model's chat template.

The prompts were chosen by measurement: see docs/log. They give a length in sentences, because small
models that are told a number of words repeat themselves until they have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from namm_llm.errors import UsageError
from namm_llm.models.prompt import Question
from namm_llm.runner import Runner

LENGTHS = {"short": 2, "medium": 5, "long": 12}
"""Sentences."""
_NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()
_TOKENS_PER_SENTENCE = 60  # in any language; an answer that is cut is worse than room that is left
_SPARE_TOKENS = 32

WHOLE = "Summarize the text above in {sentences}."
PART = "The text above is one part of a longer document. Summarize it in {sentences}."
JOIN = (
    "Above are summaries of the parts of one document, in their order. Write one summary of the "
    "whole document in {sentences}."
)
GO_ON = (
    "Above are a summary of a document so far and the text that follows. Write one summary of both "
    "together in {sentences}."
)
FOCUS = " Tell only what matters for this: {focus}"

_NUMBERED = "Part {number}:\n{summary}"
_SO_FAR = "Summary so far:\n{summary}\n\nText that follows:\n{text}"


@dataclass(frozen=True)
class Request:
    """What a summary is to be."""

    sentences: int
    """About how long it is."""
    focus: str | None = None
    """What it is about; None for everything."""

    @classmethod
    def of(cls, length: int | str, focus: str | None) -> Request:
        """length: a number of sentences, or a name of `LENGTHS`.

        Raises UsageError for anything else, and for a focus without words.
        """
        if isinstance(length, str) and length.isdecimal():
            length = int(length)
        sentences = LENGTHS.get(length) if isinstance(length, str) else length
        if not isinstance(sentences, int) or isinstance(sentences, bool) or sentences < 1:
            raise UsageError(
                f"length must be a number of sentences or one of {', '.join(LENGTHS)}, "
                f"not {length!r}."
            )
        if focus is not None and not focus.strip():
            raise UsageError(
                "the focus is empty; say what the summary is to be about, or leave it out."
            )
        return cls(sentences, focus and " ".join(focus.split()))

    @property
    def max_tokens(self) -> int:
        """Enough for an answer of that many sentences, in any language."""
        return _TOKENS_PER_SENTENCE * self.sentences + _SPARE_TOKENS

    def text(self, prompt: str) -> str:
        """One of the prompts above, with length and focus."""
        count = dict(enumerate(_NUMBERS, 1)).get(self.sentences, str(self.sentences))
        sentences = f"{count} sentence{'s' if self.sentences > 1 else ''}"
        focus = FOCUS.format(focus=self.focus) if self.focus else ""
        return prompt.format(sentences=sentences) + focus

    def question(self, prompt: str, runner: Runner) -> Question:
        """The same as what follows a document: a message, so that it is not taken for a question
        about the text.
        """
        text = self.text(prompt)
        return [{"role": "user", "content": text}] if runner.has_chat_template else text


def joined(summaries: Sequence[str]) -> str:
    """Summaries of parts, numbered, as the text that they are joined from."""
    return "\n\n".join(
        _NUMBERED.format(number=number, summary=summary)
        for number, summary in enumerate(summaries, 1)
    )


def so_far(summary: str, text: str) -> str:
    """The summary of what came before, and the text that follows, as one text."""
    return _SO_FAR.format(summary=summary, text=text)
