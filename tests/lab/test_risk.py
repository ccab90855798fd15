"""Budgets that are recommended with a confidence: coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from namm_lab.evaluate.risk import documents_needed, p_value, recommend
from namm_llm import UsageError

MEANS = {"0.5": 0.01, "0.25": 0.03, "0.125": 0.055, "0.0625": 0.2}  # two of them lose over 0.05


def draw(rng, mean: float, count: int, kind: str) -> list[float]:
    if kind == "all or nothing":
        return (rng.random(count) < mean).astype(float).tolist()
    return rng.beta(4 * mean, 4 * (1 - mean), count).tolist()


@pytest.mark.parametrize("kind", ["all or nothing", "shares"])
def test_a_budget_that_loses_too_much_is_rarely_recommended(kind):
    """In at least 95 of 100 draws what is recommended keeps its promise."""
    rng, wrong, useful = np.random.default_rng(5), 0, 0
    for _ in range(100):
        losses = {budget: draw(rng, mean, 250, kind) for budget, mean in MEANS.items()}
        found = recommend(losses, 0.95)
        wrong += found.budget is not None and MEANS[found.budget] > 0.05
        useful += found.budget is not None
    assert wrong <= 5
    assert useful >= 50


def test_at_the_border_the_test_errs_as_rarely_as_it_says():
    rng = np.random.default_rng(6)
    wrong = sum(p_value(draw(rng, 0.1, 300, "all or nothing"), 0.1) <= 0.05 for _ in range(400))
    assert wrong <= 20 + 2 * 20**0.5


def test_nothing_behind_the_first_budget_that_fails_is_recommended():
    losses = {"0.5": [0.0] * 200, "0.25": [0.5] * 200, "0.125": [0.0] * 200}
    assert recommend(losses, 0.95).budget == "0.5"


def test_too_few_documents_say_how_many_are_needed():
    found = recommend({"0.5": [0.0] * 10}, 0.95)
    assert found.budget is None
    assert recommend({"0.5": [0.0] * found.needed}, 0.95).budget == "0.5"
    assert recommend({"0.5": [0.0] * (found.needed - 1)}, 0.95).budget is None
    said = f"10 documents are too few for fidelity 0.95 at 95% confidence: about {found.needed}"
    assert said in found.sentence()


def test_more_is_needed_for_more():
    numbers = [documents_needed(0.0, fidelity) for fidelity in (0.9, 0.95, 0.99)]
    assert numbers == sorted(numbers)
    assert numbers[0] >= 29  # with less even a tenth of total losses may go unseen
    assert documents_needed(0.02, 0.95) > documents_needed(0.01, 0.95)
    assert documents_needed(0.05, 0.95) == 0


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, -1.0])
def test_shares_that_are_none(share):
    with pytest.raises(UsageError, match="recommend must be a number between 0 and 1"):
        recommend({"0.5": [0.0]}, share)
