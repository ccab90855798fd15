"""How many tokens a KV head may keep: a fraction of the tokens seen, a number of tokens, or a size
in bytes.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from namm_llm.errors import BudgetError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{prefix}I": 2 ** (10 * power) for power, prefix in enumerate("KMGT", 1)}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT]I?)B?|B)", re.IGNORECASE)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_HELP = (
    "give a fraction above 0 and up to 1.0 (0.25, 25%), a number of tokens for each KV head from 2 "
    "on (2048) or a size (2GiB)."
)


@dataclass(frozen=True)
class TokenCost:
    """What the cache of one sequence costs."""

    token_nbytes: int
    """Bytes of one retained token of one KV head, with all its columns."""
    heads: int
    """KV heads of all layers."""
    fixed_nbytes: int
    """Bytes that do not depend on the budget: a whole window."""


class Budget(ABC):
    """A limit on the tokens that an eviction step keeps; a window of up to one interval of newer
    tokens comes on top.
    """

    def times(self, count: int) -> Budget:
        """Of `count` documents together, each of which has this budget."""
        return self

    @abstractmethod
    def tokens(self, seen: int, cost: TokenCost) -> int:
        """Tokens that each KV head may keep after `seen` tokens, at least 1."""


@dataclass(frozen=True)
class FractionBudget(Budget):
    """A share of the tokens seen so far."""

    fraction: float

    def tokens(self, seen: int, cost: TokenCost) -> int:
        return max(1, math.floor(self.fraction * seen))

    def __str__(self) -> str:
        # "1" is refused: it could mean one token
        return "1.0" if self.fraction == 1 else f"{self.fraction:g}"


@dataclass(frozen=True)
class TokenBudget(Budget):
    """A number of tokens for each KV head."""

    count: int

    def tokens(self, seen: int, cost: TokenCost) -> int:
        return self.count

    def times(self, count: int) -> Budget:
        return TokenBudget(self.count * count)

    def __str__(self) -> str:
        return str(self.count)


@dataclass(frozen=True)
class ByteBudget(Budget):
    """Bytes for one sequence's whole cache, the policy's state, positions and the window counted
    in.
    """

    nbytes: int
    text: str

    def tokens(self, seen: int, cost: TokenCost) -> int:
        count = (self.nbytes - cost.fixed_nbytes) // (cost.token_nbytes * cost.heads)
        if count < 1:
            least = cost.fixed_nbytes + cost.token_nbytes * cost.heads
            raise BudgetError(
                f"a budget of {self.text} is too small: this model needs at least "
                f"{math.ceil(least / 1000)}K with this interval, and less with a smaller one."
            )
        return count

    def times(self, count: int) -> Budget:
        return ByteBudget(self.nbytes * count, f"{self.nbytes * count}B")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class AutoBudget(Budget):
    """The budget that `namm-llm eval --recommend` found; only a runner knows it."""

    def tokens(self, seen: int, cost: TokenCost) -> int:
        raise BudgetError(
            "a budget of auto goes with a Runner, which knows the model; give another."
        )

    def __str__(self) -> str:
        return "auto"


@dataclass(frozen=True)
class MeasuredBudget(Budget):
    """A budget with what is known of it."""

    budget: Budget
    said: str
    """Behind the budget, wherever it is shown."""

    def tokens(self, seen: int, cost: TokenCost) -> int:
        return self.budget.tokens(seen, cost)

    def __str__(self) -> str:
        return f"{self.budget} ({self.said})"


def parse_budget(value: Budget | float | int | str | None) -> Budget | None:
    """A budget from what a user writes: `0.25`, `"25%"`, `2048`, `"2GiB"`, `"auto"`, or None for no
    budget.

    BudgetError for anything else, and for the number 1, which could mean one token or everything.
    """
    if value is None or isinstance(value, Budget):
        return value
    if isinstance(value, str):
        return _parse_text(value.strip())
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if isinstance(value, float) and 0 < value <= 1:
            return FractionBudget(value)
        if value == 1:
            raise BudgetError(
                "a budget of 1 would keep a single token for each KV head: write 1.0 or 100% to "
                "keep every token, or a number of tokens from 2 on."
            )
        if value > 1 and value == value // 1 and math.isfinite(value):
            return TokenBudget(int(value))
    raise BudgetError(f"{value!r} is not a budget: {_HELP}")


def parse_size(text: str) -> int | None:
    """Bytes of `2GiB`, `512M` or `1.5 TB`; None for what is no size. `K`, `M`, `G`, `T` count in
    thousands, `Ki`, `Mi`, `Gi`, `Ti` in 1024s.
    """
    size = _SIZE.fullmatch(text.strip())
    return None if size is None else int(float(size[1]) * _UNITS[(size[2] or "").upper()])


def _parse_text(text: str) -> Budget | None:
    if text == "auto":
        return AutoBudget()
    if nbytes := parse_size(text):
        return ByteBudget(nbytes, text)
    if share := _PERCENT.fullmatch(text):
        return parse_budget(float(share[1]) / 100)
    try:
        return parse_budget(int(text) if text.isdecimal() else float(text))
    except ValueError:
        point = f"write {text.replace(',', '.')} with a point." if _is_comma(text) else _HELP
        raise BudgetError(f"{text!r} is not a budget: {point}") from None


def _is_comma(text: str) -> bool:
    return re.fullmatch(r"\d+,\d+", text) is not None
