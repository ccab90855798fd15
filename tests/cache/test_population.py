"""A population in one batch: every sequence with settings of its own is what it would be in a cache
alone.
"""

from __future__ import annotations

import pytest
import torch

from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config
from namm_llm.errors import CacheError
from tests import dense
from tests.architectures import random_ids
from tests.cache.test_eviction import random_namm

INTERVAL = 48
SETTINGS = [
    {"policy": "full"},
    {"policy": "namm", "namm": random_namm(1)},
    {"policy": "namm", "namm": random_namm(1), "budget": 0.3, "budget_scope": "model"},
    {"policy": "namm", "namm": random_namm(2), "budget": 0.3, "budget_scope": "model"},
    {"policy": "h2o", "budget": 20, "budget_scope": "layer"},
    {"policy": "snapkv", "budget": 0.5},
]


def population():
    return [make_cache_config(**settings, interval=INTERVAL) for settings in SETTINGS]


def read(model, cache, ids):
    return torch.cat(
        [model(piece, past_key_values=cache).logits for piece in ids.split(INTERVAL, 1)], 1
    )


def assert_row_is(cache, row, alone):
    assert [layer[row] for layer in cache.kept_tokens()] == [
        layer[0] for layer in alone.kept_tokens()
    ]
    together, single = dense.stored_positions(cache), dense.stored_positions(alone)
    assert all(torch.equal(together[layer][row], single[layer][0]) for layer in single)


def test_each_row_is_what_it_is_alone(llama):
    document, question = random_ids(1, 310), random_ids(1, 30, seed=1)
    cache = ManagedCache.for_population(llama, population())
    logits = read(llama, cache, document.expand(len(SETTINGS), -1))
    cache.evict()
    cache.protect([(310, 340)])
    asked = read(llama, cache, question.expand(len(SETTINGS), -1))
    for row, eviction in enumerate(population()):
        alone = ManagedCache.for_model(llama, eviction)
        torch.testing.assert_close(
            logits[row], read(llama, alone, document)[0], atol=1e-4, rtol=1e-4
        )
        alone.evict()
        alone.protect([(310, 340)])
        torch.testing.assert_close(
            asked[row], read(llama, alone, question)[0], atol=1e-4, rtol=1e-4
        )
        assert_row_is(cache, row, alone)
    assert (
        len(
            {
                tuple(map(tuple, (layer[row] for layer in cache.kept_tokens())))
                for row in range(len(SETTINGS))
            }
        )
        >= 4
    )


def test_settings_go_with_their_sequence(llama):
    cache = ManagedCache.for_population(llama, population())
    read(llama, cache, random_ids(1, 150).expand(len(SETTINGS), -1))
    fork = cache.fork()
    fork.select_rows([5, 1, 1])
    assert fork.configs == tuple(population()[row] for row in (5, 1, 1))
    read(llama, fork, random_ids(1, 150, seed=2).expand(3, -1))
    alone = ManagedCache.for_model(llama, population()[1])
    read(llama, alone, random_ids(1, 150))
    read(llama, alone, random_ids(1, 150, seed=2))
    assert_row_is(fork, 1, alone)
    assert_row_is(fork, 2, alone)
    assert cache.seen_tokens() == [150] * len(SETTINGS)


def test_another_number_of_rows_is_refused(llama):
    with pytest.raises(CacheError, match="settings for 6 sequences, the model was given 2"):
        llama(random_ids(2, 10), past_key_values=ManagedCache.for_population(llama, population()))
