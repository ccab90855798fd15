"""The ids that stand for a picture's tokens: past every vocabulary, made of the pixels and of the
place in the picture.

So whoever compares ids (prefix caches, memories of conversations, guesses) never takes one picture
for another, and needs to know nothing of pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

FIRST = 1 << 61
"""No vocabulary reaches it, and it fits into int64."""


def picture_ids(sha256: str, count: int) -> list[int]:
    """The ids of `count` tokens of a picture: 60 bits of a hash each."""
    digests = (hashlib.sha256(f"{sha256} {place}".encode()).digest() for place in range(count))
    return [FIRST | int.from_bytes(digest[:8], "big") >> 4 for digest in digests]


def is_picture(id: int) -> bool:
    """Whether an id stands for a token of a picture."""
    return id >= FIRST


def in_vocabulary(ids: Iterable[int]) -> list[int]:
    """The ids that are text."""
    return [id for id in ids if id < FIRST]
