"""A NAMM's zero, moved to where a budget cuts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from namm_lab.train.families import FAMILIES
from namm_lab.train.threshold import set_threshold
from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config
from namm_llm.namm.layout import parameter_count
from tests.architectures import random_ids, random_llama

INTERVAL = 50


@pytest.fixture(scope="module")
def llama():
    return random_llama(layers=2)


def drawn(name: str):
    namm = FAMILIES[name]
    generator = torch.Generator().manual_seed(3)
    return replace(namm, theta=torch.randn(len(namm.theta), generator=generator) / 3)


def config(namm, budget="0.25"):
    return make_cache_config(
        "namm",
        namm=namm,
        budget=budget,
        budget_scope="model",
        interval=INTERVAL,
        sinks=0,
        protect_recent=0,
    )


def kept(llama, namm, document, budget=None):
    cache = ManagedCache.for_model(llama, config(namm, budget))
    for piece in torch.split(torch.tensor([document]), INTERVAL, 1):
        llama(piece, past_key_values=cache)
    return cache.kept_tokens()


def tokens(counts) -> int:
    return sum(sum(heads) for layer in counts for heads in layer)


@pytest.mark.parametrize("name", ["neighbours", "published"])
def test_without_a_budget_it_keeps_what_the_budget_keeps(llama, name):
    document = random_ids(1, INTERVAL, 0)[0].tolist()
    namm = drawn(name).with_zero_at(10.0)
    assert kept(llama, namm, document) == [[[1, 1]]] * 2  # a head is never empty
    found = set_threshold(llama, config(namm), [document])
    wanted = tokens(kept(llama, namm, document, "0.25"))
    assert (
        wanted <= tokens(kept(llama, found, document)) <= wanted + 4
    )  # each head's newest token, which the budget counts
    bias = parameter_count(namm.settings.feature_count, namm.attention_dim) - 1
    assert (found.theta != namm.theta).nonzero().flatten().tolist() == [bias]


def test_under_a_budget_nothing_changes(llama):
    document = random_ids(1, 3 * INTERVAL, 1)[0].tolist()
    namm = drawn("neighbours")
    found = set_threshold(llama, config(namm), [document])
    assert found != namm
    assert kept(llama, found, document, "0.25") == kept(llama, namm, document, "0.25")


def test_it_is_left_alone_where_nothing_is_evicted(llama):
    document = random_ids(1, 3 * INTERVAL, 1)[0].tolist()
    namm = drawn("neighbours")
    assert set_threshold(llama, config(namm, "1000"), [document]) == namm
