"""Token ids to the text of an answer: whole characters, up to a stop string.

Works on ids and text alone; end tokens and the token limit belong to `Answer`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

_CONTEXT = 4  # tokens of the prompt that decide whether the answer's first word begins with a space


class Detokenizer:
    """Turns the tokens of one answer into text, one at a time, never half a character.

    Bytes of a character that is not yet whole are held back; if the answer ends within a
    character, they are dropped. Special tokens have no text. prompt: the ids before the answer.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        context = list(prompt[-_CONTEXT:])
        if tokenizer.decode(context).endswith("\N{REPLACEMENT CHARACTER}"):
            context = []  # half a character: its text would be taken for the answer's
        self._stream = DecodeStream(ids=context, skip_special_tokens=True)

    def feed(self, token: int) -> str:
        """The text that became whole with this token; often one word, sometimes nothing."""
        return self._stream.step(self._tokenizer, token) or ""


class StopStrings:
    """Ends a text where a stop string begins, across the borders of pieces.

    Text that could be the beginning of a stop string is held back until it is clear.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty stop string"
        self._stops = tuple(stops)
        self._held = ""
        self.found = False
        """Whether a stop string has come; then nothing more comes out."""

    def feed(self, text: str) -> str:
        """The text that is surely part of the answer now."""
        if self.found:
            return ""
        self._held += text
        ends = [
            (start + len(stop), start)
            for stop in self._stops
            if (start := self._held.find(stop)) >= 0
        ]
        if ends:
            self.found = True
            # the one that is whole first, as if the text had come letter by letter
            _, start = min(ends)
            shown, self._held = self._held[:start], ""
            return shown
        overlap = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        border = len(self._held) - overlap
        shown, self._held = self._held[:border], self._held[border:]
        return shown

    def flush(self) -> str:
        """What was held back, when nothing more can follow."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
