"""What the model is asked for. Every prompt of a summary stands here; the runner puts it behind the
text, in the model's chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from namm_llm.errors import UsageError

LENGTHS = {"short": 50, "medium": 150, "long": 400}  # words
# in English it is 1.3, in other languages up to this; an answer that is cut is worse than room that
# is left
_TOKENS_PER_WORD = 3
_SPARE_TOKENS = 32

WHOLE = "Summarize the text above in about {words} words."
PART = "The text above is one part of a longer document. Summarize it in about {words} words."
JOIN = "Above are summaries of the parts of one document, in their order. Write one summary of the whole document in about {words} words."
GO_ON = "Above are a summary of a document so far and the text that follows. Write one summary of both together in about {words} words."
FOCUS = " Tell only what matters for this: {focus}"

_NUMBERED = "Part {number}:\n{summary}"
_SO_FAR = "Summary so far:\n{summary}\n\nText that follows:\n{text}"


@dataclass(frozen=True)
class Request:
    """words: about how long a summary is to be. focus: what it is to be about; None for everything."""

    words: int
    focus: str | None = None

    @classmethod
    def of(cls, length: int | str, focus: str | None) -> Request:
        """length: a number of words, or a name of `LENGTHS`. UsageError for anything else, and for
        a focus without words.
        """
        if isinstance(length, str) and length.isdecimal():
            length = int(length)
        words = LENGTHS.get(length) if isinstance(length, str) else length
        if not isinstance(words, int) or isinstance(words, bool) or words < 1:
            raise UsageError(
                f"length must be a number of words or one of {', '.join(LENGTHS)}, not {length!r}."
            )
        if focus is not None and not focus.strip():
            raise UsageError(
                "the focus is empty; say what the summary is to be about, or leave it out."
            )
        return cls(words, focus and " ".join(focus.split()))

    @property
    def max_tokens(self) -> int:
        """Room for an answer of that many words, in any language."""
        return _TOKENS_PER_WORD * self.words + _SPARE_TOKENS

    def text(self, prompt: str) -> str:
        """One of the prompts above, with length and focus."""
        return prompt.format(words=self.words) + (
            FOCUS.format(focus=self.focus) if self.focus else ""
        )


def joined(summaries: Sequence[str]) -> str:
    """Summaries of parts, numbered, as the text that they are joined from."""
    return "\n\n".join(
        _NUMBERED.format(number=number, summary=summary)
        for number, summary in enumerate(summaries, 1)
    )


def so_far(summary: str, text: str) -> str:
    """The summary of what came before, and the text that follows, as one text."""
    return _SO_FAR.format(summary=summary, text=text)
