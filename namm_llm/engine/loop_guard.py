"""`LoopGuard`: notices that an answer has begun to repeat itself.

Greedy decoding of small models ends in loops: one block of tokens over and over until `max_tokens`.
A penalty on repeated tokens changes every answer; this only looks, so an answer without a loop is
what it is without the guard.
"""

from __future__ import annotations

COPIES = 3
LEAST_TOKENS = 48
LONGEST_BLOCK = 256


class LoopGuard:
    """Tells of each token of an answer whether the answer is in a loop after it.

    It is in a loop if its last tokens are one block of at most `longest` tokens, repeated `copies`
    times or more without a gap, and `least` tokens or more in all. A part of a block at the front
    of them counts as tokens.
    """

    def __init__(
        self, *, copies: int = COPIES, least: int = LEAST_TOKENS, longest: int = LONGEST_BLOCK
    ) -> None:
        self._copies = copies
        self._least = least
        self._longest = longest
        self._tokens: list[int] = []
        self._same: dict[int, int] = {}
        """For each length of a block, how many of the last tokens equal the one so far before."""

    def feed(self, token: int) -> bool:
        """Take the next token; whether the answer is in a loop now."""
        self._tokens.append(token)
        same = dict[int, int]()
        for length in range(1, min(self._longest, len(self._tokens) - 1) + 1):
            if self._tokens[-1 - length] == token:
                same[length] = self._same.get(length, 0) + 1
        self._same = same
        return any(
            count + length >= max(self._copies * length, self._least)
            for length, count in same.items()
        )
