"""Budgets and eviction settings from what a user writes, and the messages for what cannot be."""

from __future__ import annotations

import pytest

from namm_llm.config import make_cache_config
from namm_llm.errors import BudgetError, NammFileError, PolicyError, UsageError
from namm_llm.namm import Namm
from namm_llm.policies import DEFAULT_POLICY, POLICIES, parse_budget
from namm_llm.policies.budget import ByteBudget, FractionBudget, TokenBudget, TokenCost


@pytest.mark.parametrize(
    ("written", "budget"),
    [
        (0.25, FractionBudget(0.25)),
        ("0.25", FractionBudget(0.25)),
        (1.0, FractionBudget(1.0)),
        ("1.0", FractionBudget(1.0)),
        ("100%", FractionBudget(1.0)),
        ("50%", FractionBudget(0.5)),
        (2, TokenBudget(2)),
        ("2048", TokenBudget(2048)),
        ("1e3", TokenBudget(1000)),
        ("1G", ByteBudget(10**9, "1G")),
        ("512M", ByteBudget(512 * 10**6, "512M")),
        ("1TB", ByteBudget(10**12, "1TB")),
        ("2Ki", ByteBudget(2048, "2Ki")),
        ("2GiB", ByteBudget(2**31, "2GiB")),
        ("1.5 MB", ByteBudget(1_500_000, "1.5 MB")),
        ("800b", ByteBudget(800, "800b")),
        (None, None),
    ],
)
def test_budgets(written, budget):
    assert parse_budget(written) == budget


@pytest.mark.parametrize(
    "written", [0, -1, 0.0, 1.5, -0.25, "0", "-1", "lots", "", "0GB", "nan", "inf", True, "150%"]
)
def test_what_is_no_budget(written):
    with pytest.raises(
        BudgetError,
        match=r"is not a budget: give a fraction above 0 and up to 1\.0 \(0\.25, 25%\), a number",
    ):
        parse_budget(written)


@pytest.mark.parametrize("written", [1, "1"])
def test_one_is_neither_a_token_nor_everything(written):
    with pytest.raises(BudgetError, match=r"write 1\.0 or 100% to keep every token"):
        parse_budget(written)


@pytest.mark.parametrize("written", [1.0, "100%", 0.25, "1%", 2, 2048, "2GiB", "auto"])
def test_a_budget_is_shown_as_it_can_be_written(written):
    budget = parse_budget(written)
    assert parse_budget(str(budget)) == budget


def test_a_decimal_comma_is_named():
    with pytest.raises(BudgetError, match=r"'0,25' is not a budget: write 0\.25 with a point"):
        parse_budget("0,25")


def test_tokens_of_a_budget():
    room = TokenCost(token_nbytes=100, heads=8, fixed_nbytes=1000)
    assert FractionBudget(0.25).tokens(1002, room) == 250
    assert FractionBudget(0.001).tokens(10, room) == 1
    assert TokenBudget(7).tokens(1002, room) == 7
    assert ByteBudget(5000, "5000B").tokens(1002, room) == 5
    with pytest.raises(
        BudgetError, match="a budget of 1000B is too small: this model needs at least 2K with"
    ):
        ByteBudget(1000, "1000B").tokens(1002, room)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"policy": "h20", "budget": 5},
            PolicyError,
            r"no policy 'h20' \(did you mean h2o\?\); choose one of full, streaming_llm",
        ),
        (
            {"policy": "full", "budget": 0.5},
            PolicyError,
            "policy full keeps every token and takes no budget",
        ),
        ({"policy": "h2o"}, PolicyError, "policy h2o needs a budget, for example 0.25"),
        ({"policy": "namm"}, PolicyError, r"needs a trained NAMM: name its file \(--namm FILE\)"),
        ({"policy": "namm", "namm": "nowhere.safetensors"}, NammFileError, "nowhere.safetensors"),
        (
            {"policy": "h2o", "budget": 5, "budget_scope": "all"},
            UsageError,
            "budget_scope must be one of head, layer, model, padded",
        ),
        ({"policy": "h2o", "budget": 5, "budget_scope": "padded"}, PolicyError, "takes no budget"),
        ({"policy": "h2o", "budget": 5, "interval": 0}, UsageError, "tokens from 1 on, not 0"),
        ({"policy": "h2o", "budget": 5, "sinks": -1}, UsageError, "tokens from 0 on, not -1"),
        ({"policy": "h2o", "budget": 5, "protected": [(5, 5)]}, UsageError, "a protected span is"),
    ],
)
def test_settings_that_cannot_be(settings, error, message):
    with pytest.raises(error, match=message) as caught:
        make_cache_config(**settings)
    assert "\n" not in str(caught.value)


def test_defaults():
    assert make_cache_config().describe() == "full"
    assert make_cache_config(budget=0.5).policy == DEFAULT_POLICY()
    assert make_cache_config(budget=0.5, namm=Namm.zeros()).policy.name == "namm"


def test_settings_describe_themselves_and_compare():
    assert make_cache_config("full").describe() == "full"
    assert (
        make_cache_config("h2o", budget="2048", budget_scope="layer").describe()
        == "h2o, budget 2048, layer"
    )
    namm = Namm.zeros()
    name = f"namm {namm.fingerprint}"
    assert make_cache_config("namm", namm=namm).describe() == f"{name}, threshold 0, head"
    assert make_cache_config("namm", namm=namm) == make_cache_config("namm", namm=Namm.zeros())
    assert set(POLICIES) == {
        "full",
        "streaming_llm",
        "h2o",
        "snapkv",
        "tova",
        "knorm",
        "keydiff",
        "novelty",
        "random",
        "replay",
        "expected_attention",
        "kvzip",
        "namm",
    }
