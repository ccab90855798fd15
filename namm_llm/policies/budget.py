"""How many tokens a KV head may keep: a fraction of the tokens seen, a number of tokens, or a size
in bytes.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from namm_llm.errors import BudgetError

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]I?B|B)", re.IGNORECASE)
_HELP = "give a fraction above 0 and up to 1.0 (0.25), a number of tokens for each KV head (2048) or a size (2GiB)"


@dataclass(frozen=True)
class Room:
    """What one sequence's cache costs: bytes of one token of one KV head with all its columns,
    heads of all layers, and fixed bytes.
    """

    token_nbytes: int
    heads: int
    fixed_nbytes: int


class Budget(ABC):
    """A limit on the tokens kept by an update; up to one update interval of newer, not yet judged
    tokens comes on top.
    """

    @abstractmethod
    def tokens(self, seen: int, room: Room) -> int:
        """Tokens that each KV head may keep after `seen` tokens, at least 1."""


@dataclass(frozen=True)
class FractionBudget(Budget):
    """A share of the tokens seen so far."""

    fraction: float

    def tokens(self, seen: int, room: Room) -> int:
        return max(1, math.floor(self.fraction * seen))

    def __str__(self) -> str:
        return f"{self.fraction:g}"


@dataclass(frozen=True)
class TokenBudget(Budget):
    """A number of tokens for each KV head."""

    count: int

    def tokens(self, seen: int, room: Room) -> int:
        return self.count

    def __str__(self) -> str:
        return str(self.count)


@dataclass(frozen=True)
class ByteBudget(Budget):
    """Bytes for one sequence's whole cache, the policy's state, the positions and the running
    interval counted in.
    """

    nbytes: int
    text: str

    def tokens(self, seen: int, room: Room) -> int:
        count = (self.nbytes - room.fixed_nbytes) // (room.token_nbytes * room.heads)
        if count < 1:
            least = room.fixed_nbytes + room.token_nbytes * room.heads
            raise BudgetError(
                f"a budget of {self.text} is too small: this model needs at least {least} bytes with this update interval"
            )
        return count

    def __str__(self) -> str:
        return self.text


def parse_budget(value: Budget | float | int | str | None) -> Budget | None:
    """A budget from what a user writes: `0.25`, `2048`, `"2GiB"`, `"0.25"`, or None for no budget."""
    if value is None or isinstance(value, Budget):
        return value
    if isinstance(value, bool):
        raise BudgetError(f"{value!r} is not a budget: {_HELP}")
    if isinstance(value, str):
        return _parse_text(value.strip())
    if isinstance(value, int) and value >= 1:
        return TokenBudget(value)
    if isinstance(value, float) and 0 < value <= 1:
        return FractionBudget(value)
    raise BudgetError(f"{value!r} is not a budget: {_HELP}")


def _parse_text(text: str) -> Budget:
    if size := _SIZE.fullmatch(text):
        nbytes = int(float(size[1]) * _UNITS[size[2].upper()])
        if nbytes > 0:
            return ByteBudget(nbytes, text)
    try:
        number: Budget | None = parse_budget(int(text))
    except ValueError:
        try:
            number = parse_budget(float(text))
        except ValueError:
            raise BudgetError(f"{text!r} is not a budget: {_HELP}") from None
    assert number is not None
    return number
