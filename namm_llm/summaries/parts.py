"""A text cut into parts that fit a model, where a reader would cut it. The parts put together are
the text.

Works on a text and the characters where its tokens begin; knows no model.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import ceil

# the best first. A space goes with the word behind it, as tokens have it, so that a part has the
# tokens that it has in the whole text.
_BORDERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\n(?:[ \t\r]*\n)+",  # paragraph
        r"\n",  # line
        r"[.!?…][\"'”’)\]]*(?=\s)|[。！？][”’」』）]*",  # sentence
        r"\S(?=\s)",  # word
    )
)
_REACH = 0.4  # of a part's length: how far a better border may be from where even parts would end


def cut(text: str, starts: Sequence[int], limit: int, fits: Callable[[str], bool]) -> list[str]:
    """Parts of about equal length, each of at most `limit` tokens.

    starts: the character where each token of the text begins. fits: whether a part, whose tokens
    can be others than in the whole text, is small enough; a part of one token is not asked about.
    """
    parts, begin, at = list[str](), 0, 0
    while begin < len(text):
        tokens = limit
        end = _end(text, starts, begin, at, tokens)
        while tokens > 1 and not fits(text[begin:end]):
            tokens = tokens * 9 // 10
            end = _end(text, starts, begin, at, tokens)
        parts.append(text[begin:end])
        begin, at = end, bisect_left(starts, end)
    return parts


def _end(text: str, starts: Sequence[int], begin: int, at: int, limit: int) -> int:
    """Where the part ends that begins at the character `begin`, which is in the token `at`."""
    left = len(starts) - at
    if left <= limit:
        return len(text)
    even = ceil(left / ceil(left / limit))
    low, high = even - int(even * _REACH), min(even + int(even * _REACH), limit)
    return _border(text, *(max(starts[at + tokens], begin + 1) for tokens in (low, even, high)))


def _border(text: str, low: int, target: int, high: int) -> int:
    """The best border from `low` to `high`, of equal ones the nearest to `target`; `target` itself
    in the middle of an endless word.
    """
    for border in _BORDERS:
        # one character more, for what looks ahead
        matches = border.finditer(text, max(low - 1, 0), high + 1)
        ends = [end for match in matches if low <= (end := match.end()) <= high]
        if ends:
            return min(ends, key=lambda end: abs(end - target))
    return target
