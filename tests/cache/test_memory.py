"""Bytes and allocations of a long reading."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config
from namm_llm.tokens import HeadTokens
from tests.architectures import random_ids, random_llama
from tests.cache.test_eviction import random_namm


@pytest.fixture(autouse=True)
def fast_memory():
    """These read long texts; poisoning every buffer would take longer than reading."""
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("head_dim", "most"), [(64, 0.32), (128, 0.30)])
def test_a_quarter_of_the_tokens_is_little_more_than_a_quarter_of_the_bytes(head_dim, most):
    model = random_llama(head_dim=head_dim, layers=1, dtype=torch.bfloat16)
    cache = ManagedCache.for_model(model, policy="namm", namm=random_namm(), budget=0.25)
    for piece in random_ids(1, 16_000).split(512, 1):
        model(piece, past_key_values=cache, logits_to_keep=1)
        assert cache.stats().stored_tokens <= 0.25 * cache.stats().seen_tokens + 512
    cache.evict()
    stats = cache.stats()
    assert stats.full_nbytes == 16_000 * 2 * 2 * head_dim * 2
    assert stats.kept_fraction <= 0.25
    assert stats.nbytes <= most * stats.full_nbytes


class LargestAllocation(TorchDispatchMode):
    """The largest tensor that any operation makes anew."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        held = {
            t.untyped_storage().data_ptr()
            for t in tree_leaves((args, kwargs))
            if isinstance(t, torch.Tensor)
        }
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in held:
                self.nbytes = max(self.nbytes, tensor.untyped_storage().nbytes())
        return out


def test_decoding_between_two_updates_allocates_nothing_that_grows_with_the_cache():
    model = random_llama(layers=1)
    eviction = make_cache_config("namm", namm=random_namm(), budget=0.25)
    largest = []
    for length in (1024, 8192):
        cache = ManagedCache.for_model(model, eviction)
        for piece in random_ids(1, length + 1).split(512, 1):
            model(piece, past_key_values=cache, logits_to_keep=1)
        retained = cache.managed[0].sequences[0].retained
        with LargestAllocation() as allocation:
            for token in random_ids(1, 40, seed=1).split(1, 1):
                model(token, past_key_values=cache)
        assert cache.managed[0].sequences[0].retained is retained
        largest.append(allocation.nbytes)
    assert largest[0] == largest[1] > 0


def test_a_step_of_the_whole_model_joins_one_head_at_a_time(monkeypatch):
    joined, alive, plain = [], [], HeadTokens.joined

    def watched(parts):
        alive.append(sum(ref() is not None for ref in joined))
        found = plain(parts)
        joined.append(weakref.ref(found.keys))
        return found

    monkeypatch.setattr(HeadTokens, "joined", watched)
    model = random_llama(layers=3)
    cache = ManagedCache.for_model(model, policy="replay", budget=0.5, budget_scope="model")
    for piece in random_ids(1, 1024).split(512, 1):
        model(piece, past_key_values=cache, logits_to_keep=1)
    assert len(joined) > 3
    assert max(alive) <= 1
