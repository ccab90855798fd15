"""The smallest budget that keeps what was asked for, with a stated confidence (Learn then Test,
arXiv 2110.01052).

Each budget is a hypothesis "on documents like these the mean loss is above what is allowed", where
the loss of a document is 1 - fidelity, from 0 to 1. Budgets are tested from the largest down, each
at the full error rate, until one cannot be rejected (fixed-sequence testing); the last rejected one
is recommended. The chance that any recommended budget loses too much is at most 1 - confidence.

The test bets against the hypothesis (Waudby-Smith and Ramdas, arXiv 2010.09686): under it a capital
that is multiplied by `1 + bet * (allowed - loss)` is a supermartingale, so that by Ville's
inequality it reaches `1 / (1 - confidence)` with a chance of at most `1 - confidence`. Each bet
depends on earlier losses alone. Documents have to be independent draws, in random order; nothing
else is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from namm_llm import UsageError

CONFIDENCE = 0.95
MOST = 10_000  # documents that anybody would measure


@dataclass(frozen=True)
class Recommendation:
    """What a test of budgets came to."""

    budget: str | None
    """The smallest budget that passed, as users write it; None if the largest did not."""
    fidelity: float
    """What was asked for."""
    confidence: float
    documents: int
    needed: int
    """Documents that the test needs for the first budget that did not pass, if its mean loss stays
    as it is; 0 if none within reason are enough, or all passed.
    """

    def known(self) -> str:
        """What is known of the budget, for results."""
        return f"auto: fidelity {self.fidelity:g} at {self.confidence:.0%} confidence"

    def sentence(self) -> str:
        """For people: the budget, or what is missing."""
        asked = f"fidelity {self.fidelity:g} at {self.confidence:.0%} confidence"
        if self.budget is not None:
            return f"budget {self.budget} keeps {asked} on documents like these {self.documents}."
        if not self.needed:
            return f"no budget that was measured keeps {asked}: measure larger ones."
        if self.needed <= self.documents:
            return f"these {self.documents} documents differ too much for {asked}: measure more."
        return (
            f"{self.documents} documents are too few for {asked}: about {self.needed} are needed "
            "at the loss that was measured."
        )


def recommend(
    losses: Mapping[str, Sequence[float]], fidelity: float, confidence: float = CONFIDENCE
) -> Recommendation:
    """The smallest budget whose mean loss is at most `1 - fidelity`, with this confidence.

    losses: of the same documents, in one random order, for each budget, the largest budget first.
    Raises UsageError for numbers that are no shares.
    """
    check_shares(fidelity, confidence)
    best: str | None = None
    count = len(next(iter(losses.values()), ()))
    for budget, found in losses.items():
        if p_value(found, 1 - fidelity) > 1 - confidence:
            mean = sum(found) / len(found) if found else 0.0
            needed = documents_needed(mean, fidelity, confidence)
            return Recommendation(best, fidelity, confidence, count, needed)
        best = budget
    return Recommendation(best, fidelity, confidence, count, 0)


def check_shares(fidelity: float, confidence: float) -> None:
    """UsageError for a number that is not between 0 and 1."""
    for name, value in {"recommend": fidelity, "confidence": confidence}.items():
        if not 0.0 < value < 1.0:
            raise UsageError(f"{name} must be a number between 0 and 1, not {value:g}.")


def p_value(losses: Sequence[float], allowed: float) -> float:
    """Of the hypothesis that the mean loss is above `allowed`: one over the largest capital."""
    log_capital = largest = 0.0
    total, squares = allowed, 0.25  # as if one document had been seen, so that bets begin small
    for number, loss in enumerate(losses, 1):
        mean, variance = total / number, squares / number
        # Kelly's bet for this mean and variance; at 1 / (1 - allowed) a loss of 1 takes it all
        bet = max(allowed - mean, 0.0) / (variance + (allowed - mean) ** 2)
        bet = min(max(bet, 0.5), 0.99 / (1 - allowed))
        log_capital += math.log1p(bet * (allowed - loss))
        largest = max(largest, log_capital)
        total += loss
        squares += (loss - mean) ** 2
    return math.exp(-largest)


def documents_needed(loss: float, fidelity: float, confidence: float = CONFIDENCE) -> int:
    """Documents that the test takes if each loses as much as `loss`; 0 if `MOST` are too few."""
    allowed, low, high = 1 - fidelity, 1, MOST
    if p_value([loss] * MOST, allowed) > 1 - confidence:
        return 0
    while low < high:
        middle = (low + high) // 2
        passes = p_value([loss] * middle, allowed) <= 1 - confidence
        low, high = (low, middle) if passes else (middle + 1, high)
    return low
