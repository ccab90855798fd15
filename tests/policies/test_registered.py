"""What holds for every registered policy, down to texts of one token."""

from __future__ import annotations

import pytest
import torch

from namm_llm.cache import ManagedCache
from namm_llm.errors import PolicyError
from namm_llm.namm import Namm
from namm_llm.policies import (
    POLICIES,
    EvictionPolicy,
    NammPolicy,
    ObservingPolicy,
    ScorePolicy,
    policy_names,
)
from namm_llm.policies.budget import FractionBudget, TokenBudget
from namm_llm.policies.h2o import H2O
from namm_llm.policies.replay import QueryReplay
from namm_llm.policies.snapkv import SnapKV
from namm_llm.policies.streaming_llm import StreamingLLM
from tests.architectures import random_ids, random_llama

EVICTING = [
    name for name in policy_names() if POLICIES[name].evicts and name != "kvzip"
]  # which needs an engine, see tests/engine/test_repetition.py


def policy_of(name: str) -> EvictionPolicy:
    return NammPolicy(Namm.zeros()) if name == "namm" else POLICIES[name]()


@pytest.fixture(scope="module")
def llama():
    return random_llama(layers=2)


@pytest.mark.parametrize("name", policy_names())
def test_a_policy_scores_keys_or_observes(name):
    kind = POLICIES[name]
    assert issubclass(kind, ScorePolicy) != issubclass(kind, ObservingPolicy)
    assert kind.observes == issubclass(kind, ObservingPolicy)
    assert kind.name == name
    assert kind.__doc__


@pytest.mark.parametrize("budget", [0.01, 0.3, 1.0, TokenBudget(1), 2, 5], ids=str)
@pytest.mark.parametrize("name", EVICTING)
def test_texts_of_some_tokens_keep_their_budget(llama, name, budget):
    """kvpress kept 0 of one or two tokens until 0.5.5, and gave NaN."""
    for interval in (1, 2, 3):
        settings = {"interval": interval, "sinks": 0, "protect_recent": 0}
        cache = ManagedCache.for_model(llama, policy_of(name), budget=budget, **settings)
        for seen, token in enumerate(random_ids(1, 5).split(1, 1), 1):
            with torch.no_grad():
                assert llama(token, past_key_values=cache).logits.isfinite().all()
            if seen % interval == 0:
                limit = cache.config.budget.tokens(seen, None)
                heads = [n for layer in cache.kept_tokens() for n in layer[0]]
                assert heads == [min(seen, max(1, limit))] * len(heads)


@pytest.mark.parametrize("name", EVICTING)
def test_nothing_protected_still_keeps_the_newest_token(llama, name):
    cache = ManagedCache.for_model(
        llama, policy_of(name), budget=0.01, interval=20, sinks=0, protect_recent=0
    )
    with torch.no_grad():
        llama(random_ids(1, 60), past_key_values=cache)
    for layer in cache.managed:
        for head in layer.sequences[0].retained.heads():
            assert head.positions.tolist() == [59]


@pytest.mark.parametrize(("seen", "kept"), [(1, 1), (5, 1), (199, 1), (200, 2), (1000, 10)])
def test_a_share_of_one_hundredth_is_at_least_one_token(seen, kept):
    assert FractionBudget(0.01).tokens(seen, None) == kept


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SnapKV(window=0), "window must be a whole number of at least 1, not 0"),
        (lambda: SnapKV(kernel=0), "kernel must be a whole number of at least 1, not 0"),
        (lambda: SnapKV(kernel=4), "kernel must be an odd number, not 4"),
        (lambda: QueryReplay(border=-1), "border must be a whole number of at least 0, not -1"),
        (lambda: StreamingLLM(num_sinks=-1), "num_sinks must be a whole number of at least 0"),
        (lambda: H2O(recent_share=1.5), "recent_share must be from 0 to 1, not 1.5"),
    ],
)
def test_settings_without_a_meaning_are_refused(make, message):
    with pytest.raises(PolicyError, match=message):
        make()
