"""How texts that went through the model were cut into tokens.

A model writes its answer in other tokens than the tokenizer would cut the same text into, and a
chat template may trim the answer's ends. Who then renders and encodes the whole conversation for
the next turn gets other ids, and no cache fits them. So the ids are remembered by their text.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

# the last of a conversation is enough to go on, the others are for answers that are taken back
_COUNT = 16


@dataclass(frozen=True)
class _Known:
    """A text that went through the model."""

    before: str
    last: str
    """The answer at its end."""
    ids: list[int]
    """Of both."""


class TokenizationCache:
    """The last texts that went through the model, with their ids. Any thread may use it.

    special: matches the special tokens, by which a message ends.
    """

    def __init__(self, special: re.Pattern[str] | None) -> None:
        self._special = special
        self._known: list[_Known] = []
        self._changing = threading.Lock()

    def add(self, before: str, last: str, ids: list[int]) -> None:
        """`ids` are those of `before + last`; of `last`, an answer, templates may leave out white
        space at its ends.
        """
        with self._changing:
            others = [
                known for known in self._known if (known.before, known.last) != (before, last)
            ]
            self._known = [*others, _Known(before, last, ids)][-_COUNT:]

    def longest(self, text: str) -> tuple[list[int], int] | None:
        """The ids of the longest known text that `text` begins with, and the characters of `text`
        that they stand for.
        """
        with self._changing:
            known_texts = list(self._known)
        found = [
            (length, known.ids) for known in known_texts if (length := self._covered(known, text))
        ]
        if not found:
            return None
        length, ids = max(found, key=lambda pair: (pair[0], len(pair[1])))
        return list(ids), length

    def _covered(self, known: _Known, text: str) -> int:
        """Characters of `text` that the known one stands for; 0 if `text` begins otherwise."""
        if not text.startswith(known.before):
            return 0
        start = len(known.before)
        if text.startswith(known.last, start):
            return start + len(known.last)
        trimmed = known.last.strip()
        end = start + len(trimmed)
        # only a whole message: in the middle of one the white space would be missed
        whole = self._special is not None and self._special.match(text, end) is not None
        return end if whole and text.startswith(trimmed, start) else 0
