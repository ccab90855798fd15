"""Text in pieces: sentences of prose, lines of code, taken in a row until they have the wanted
number of tokens.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import cycle

from namm_llm import UsageError

CountTokens = Callable[[str], int]


class Corpus:
    """The texts of one kind, prose or code, in pieces."""

    mark: str
    """What a statement on a line of its own begins with: `# ` in code."""
    texts: tuple[str, ...]
    """Whole."""

    def __init__(self, texts: Sequence[str], *, is_code: bool) -> None:
        self.mark = "# " if is_code else ""
        self.texts = tuple(texts)
        split = code_lines if is_code else sentences
        self._pieces = [piece for text in texts for piece in split(text)]

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def take(
        self, rng: random.Random, length: int, count: CountTokens, *, repeat: bool = True
    ) -> list[str]:
        """Pieces in a row from a random place on, about `length` tokens in all; the last one is cut
        to fit.

        A corpus that is shorter than that comes round again; without `repeat` that is a UsageError.
        """
        found, left = list[str](), length
        start = rng.randrange(len(self._pieces)) if self._pieces else 0
        once = self._pieces[start:] + self._pieces[:start]
        for piece in cycle(once) if repeat else once:
            if left <= 0:
                return found
            tokens = count(piece)
            found.append(piece if tokens <= left else shortened(piece, left, count))
            left -= tokens
        if left > 0 and not repeat:
            raise UsageError(
                f"the texts of this split have {length - left} tokens, fewer than the {length} "
                "asked for; add texts."
            )
        return found


def sentences(text: str) -> list[str]:
    """Sentences that keep the space before them; a paragraph's last one keeps its newline."""
    found: list[str] = []
    for line in text.splitlines():
        if line.strip():
            parts = re.split(r"(?<=[.!?;])(?=\s)|(?<=[.!?]['\"”’])(?=\s)", line.strip())
            found += [*parts[:-1], parts[-1] + "\n"]
    return found


def code_lines(text: str) -> list[str]:
    """Lines with their newlines."""
    return text.splitlines(keepends=True)


def shortened(text: str, length: int, count: CountTokens) -> str:
    """The words at the beginning of a text that have at most `length` tokens."""
    words = re.findall(r"\s*\S+\s*?", text)
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if count("".join(words[:middle])) <= length else (low, middle - 1)
        )
    return "".join(words[:low])
