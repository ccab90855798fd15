"""Evicted = a dense cache with those keys masked out, however ragged; and one result however the
text is cut and batched.
"""

from __future__ import annotations

import gc

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from namm_llm.attention.observation import Observation
from namm_llm.cache import ManagedCache
from namm_llm.cache.update import evict
from namm_llm.config import CacheConfig, make_cache_config
from namm_llm.namm import Namm
from namm_llm.policies import POLICIES, NammPolicy
from namm_llm.policies.base import EvictionPolicy, ObservingPolicy
from namm_llm.policies.budget import TokenBudget
from tests import dense
from tests.architectures import random_ids, random_llama
from tests.cache.test_no_eviction import left_padded


def random_namm(seed: int = 0) -> Namm:
    generator = torch.Generator().manual_seed(seed)
    theta = 0.3 * torch.randn(Namm.zeros().vector.shape, generator=generator)
    return Namm.from_vector(theta, torch.full((17,), 0.05), torch.full((17,), 0.01))


def policy_of(name: str) -> EvictionPolicy:
    if name == "expected_attention":  # as far ahead as these texts are long
        return POLICIES[name](horizon=64, window=16)
    return NammPolicy(random_namm()) if name == "namm" else POLICIES[name]()


PLAIN = [name for name in POLICIES if name != "kvzip"]  # which needs an engine
EVICTING = [name for name in PLAIN if name != "full"]


@pytest.mark.parametrize("budget_scope", ["head", "layer", "model"])
@pytest.mark.parametrize("policy", EVICTING)
def test_evicted_equals_dense_with_a_mask(llama, policy, budget_scope):
    eviction = make_cache_config(
        policy_of(policy), budget=0.3, interval=50, budget_scope=budget_scope
    )
    assert_equals_masked_dense(llama, eviction, random_ids(2, 333), chunk=25)


def test_threshold_and_reference_mode_equal_dense_with_a_mask(llama):
    for budget_scope in ("head", "padded"):
        eviction = make_cache_config(
            NammPolicy(random_namm(), exact=True), interval=50, budget_scope=budget_scope
        )
        assert_equals_masked_dense(llama, eviction, random_ids(1, 333), chunk=50)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_shape_equals_dense_with_a_mask(data):
    kv_heads = data.draw(st.sampled_from([1, 2, 4]), "KV heads")
    model = random_llama(
        heads=4,
        kv_heads=kv_heads,
        head_dim=data.draw(st.sampled_from([8, 20]), "head size"),
        layers=2,
    )
    eviction = make_cache_config(
        policy_of(data.draw(st.sampled_from(EVICTING), "policy")),
        budget=data.draw(st.sampled_from([0.05, 0.5, TokenBudget(1), 7, 33]), "budget"),
        budget_scope=data.draw(st.sampled_from(["head", "layer"]), "budget_scope"),
        interval=data.draw(st.integers(1, 40), "interval"),
        sinks=data.draw(st.integers(0, 5), "sinks"),
        protect_recent=data.draw(st.integers(0, 9), "protect_recent"),
    )
    tokens = data.draw(st.integers(41, 120), "tokens")
    assume(
        tokens // eviction.interval * eviction.interval > 33
    )  # else no eviction step has more than the largest budget
    ids = random_ids(data.draw(st.integers(1, 3), "batch"), tokens)
    assert_equals_masked_dense(model, eviction, ids, chunk=eviction.interval)


def assert_equals_masked_dense(model, eviction: CacheConfig, ids: torch.Tensor, chunk: int) -> None:
    """Read in chunks, then decode 3 tokens one by one; the dense cache masks what the managed one
    had evicted before each call.
    """
    cache = ManagedCache.for_model(model, eviction)
    calls, before, got = [*ids[:, :-3].split(chunk, 1), *ids[:, -3:].split(1, 1)], [], []
    for call in calls:
        before.append(dense.stored_positions(cache) if cache.managed[0].sequences else {})
        got.append(model.model(call, past_key_values=cache).last_hidden_state)
    with dense.dense_attention(model) as reference:
        for call, table, states in zip(calls, before, got, strict=True):
            dense.visible.update(table)
            expected = model.model(call, past_key_values=reference).last_hidden_state
            torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)
    slots = sum(cache.seen_tokens()) * len(cache.managed) * len(cache.kept_tokens()[0][0])
    assert (
        sum(sum(heads) for layer in cache.kept_tokens() for heads in layer) < slots
    )  # something was evicted


@pytest.mark.parametrize("policy", EVICTING)
def test_chunks_do_not_change_the_result(llama, policy):
    ids = random_ids(1, 300)
    results = []
    for chunk in (1, 16, 64, 100, 300):
        cache = ManagedCache.for_model(llama, policy=policy_of(policy), budget=0.25, interval=64)
        logits = [llama(piece, past_key_values=cache).logits for piece in ids.split(chunk, 1)][-1][
            :, -1
        ]
        results.append((logits, dense.stored_positions(cache)))
    for logits, stored in results[1:]:
        torch.testing.assert_close(logits, results[0][0], atol=1e-4, rtol=1e-4)
        assert all(torch.equal(stored[layer], results[0][1][layer]) for layer in stored)


@pytest.mark.parametrize("policy", EVICTING)
def test_a_batch_gives_what_its_sequences_give_alone(llama, policy):
    ids, mask = left_padded(3, 333)
    eviction = make_cache_config(policy_of(policy), budget=0.25, interval=50)
    cache = ManagedCache.for_model(llama, eviction)
    together = llama.generate(
        ids, attention_mask=mask, max_new_tokens=70, do_sample=False, past_key_values=cache
    )
    for row in range(3):
        alone = ManagedCache.for_model(llama, eviction)
        single = llama.generate(
            ids[row : row + 1, mask[row].bool()],
            max_new_tokens=70,
            do_sample=False,
            past_key_values=alone,
        )
        assert together[row, 333:].tolist() == single[0, -70:].tolist()
        assert [layer[row] for layer in cache.kept_tokens()] == [
            layer[0] for layer in alone.kept_tokens()
        ]


class Recorder(ObservingPolicy):
    """Random eviction that records, for layer after layer and head after head, the attention that
    it is shown.
    """

    name = "recorder"

    def __init__(self, block: int) -> None:
        object.__setattr__(self, "seen", [])
        object.__setattr__(self, "block", block)

    def num_carried_queries(self, seen: int) -> int:
        return 21

    def score(self, segment, observation: Observation):
        starts = range(observation.query_start, observation.query_stop, self.block)
        rows = torch.cat(
            [observation.rows(at, min(at + self.block, observation.query_stop)) for at in starts]
        )
        self.seen.append(
            (segment.positions.long(), range(observation.query_start, observation.query_stop), rows)
        )
        return (segment.positions * 7919 % 101).float()


@pytest.mark.parametrize("block", [1, 7, 50, 71])
def test_recomputed_attention_equals_eager(llama, block):
    recorder = Recorder(block)
    eviction = make_cache_config(recorder, budget=0.3, interval=50, budget_scope="head")
    ids = random_ids(1, 250)
    cache = ManagedCache.for_model(llama, eviction)
    before = []
    for call in ids.split(50, 1):
        before.append(dense.stored_positions(cache) if cache.managed[0].sequences else {})
        llama(call, past_key_values=cache)
    with dense.dense_attention(llama) as reference:
        for call, table in zip(ids.split(50, 1), before, strict=True):
            dense.visible.update(table)
            llama(call, past_key_values=reference)
    eager = {
        layer: whole_matrix(calls) for layer, calls in dense.probabilities.items()
    }  # [H, 250, 250]
    assert len(recorder.seen) == 5 * 3 * 2  # eviction steps x layers x KV heads
    for number, (positions, queries, rows) in enumerate(recorder.seen):
        layer, head = number // 2 % 3, number % 2
        expected = eager[layer][2 * head : 2 * head + 2].mean(0)[queries.start : queries.stop][
            :, positions
        ]
        torch.testing.assert_close(rows, expected, atol=1e-5, rtol=0)


def whole_matrix(calls: list[torch.Tensor]) -> torch.Tensor:
    total = calls[-1].shape[-1]
    return torch.cat([torch.nn.functional.pad(c[0], (0, total - c.shape[-1])) for c in calls], 1)


@pytest.mark.parametrize("policy", PLAIN)
def test_nbytes_is_all_live_memory(llama, policy):
    cache = ManagedCache.for_model(
        llama, policy=policy_of(policy), budget=None if policy == "full" else 0.25, interval=64
    )
    for piece in [*random_ids(2, 290).split(96, 1), *random_ids(2, 20, seed=1).split(1, 1)]:
        llama(piece, past_key_values=cache)
        assert cache.nbytes == reachable_nbytes(cache)
    cache.evict()
    assert cache.nbytes == reachable_nbytes(cache)


def reachable_nbytes(cache: ManagedCache) -> int:
    """Bytes of every tensor that can be reached from the cache, its settings (the NAMM's weights)
    apart.
    """
    found, todo, done = {}, [cache], {id(cache.config)}
    while todo:
        thing = todo.pop()
        if (
            id(thing) in done
            or isinstance(thing, type)
            or (callable(thing) and not isinstance(thing, torch.Tensor))
        ):
            continue
        done.add(id(thing))
        if isinstance(thing, torch.Tensor):
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        else:
            todo += gc.get_referents(thing)
    return sum(found.values())


def test_budget_in_tokens_and_bytes_is_respected(llama):
    ids = random_ids(1, 608)
    for budget, budget_scope in [
        (40, "head"),
        (40, "layer"),
        (40, "model"),
        ("120KB", "head"),
        ("120KB", "layer"),
    ]:
        cache = ManagedCache.for_model(
            llama, policy=policy_of("namm"), budget=budget, interval=32, budget_scope=budget_scope
        )
        most = 0
        for number, piece in enumerate(ids.split(16, 1), 1):
            llama(piece, past_key_values=cache)
            if number % 2 == 0 and isinstance(budget, int):
                limit = {"head": 40, "layer": 2 * 40, "model": 3 * 2 * 40}[budget_scope]
                kept = cache.kept_tokens()
                counts = {
                    "head": [n for layer in kept for n in layer[0]],
                    "layer": [sum(layer[0]) for layer in kept],
                    "model": [sum(sum(layer[0]) for layer in kept)],
                }[budget_scope]
                assert counts == [min(limit, 16 * number * (limit // 40))] * len(counts)
            if isinstance(budget, str) and 16 * number > 64:
                most = max(most, cache.nbytes)
    assert 80_000 < most <= 120_000  # respected, and used


def test_sinks_recent_and_protected_spans_stay(llama):
    cache = ManagedCache.for_model(
        llama,
        policy="random",
        budget=0.1,
        interval=50,
        sinks=3,
        protect_recent=5,
        protected=[(60, 70)],
    )
    llama(random_ids(1, 400), past_key_values=cache)
    must = torch.zeros(400, dtype=torch.bool)
    must[:3] = must[60:70] = must[395:] = True
    for stored in dense.stored_positions(cache).values():
        assert stored[0][:, must].all()
        assert stored[0].sum(-1).tolist() == [40, 40]


@pytest.mark.parametrize("budget_scope", ["head", "layer", "model"])
@pytest.mark.parametrize("policy", EVICTING)
def test_short_text_is_brought_to_its_budget_at_its_end(llama, policy, budget_scope):
    cache = ManagedCache.for_model(
        llama, policy_of(policy), budget=0.25, interval=512, budget_scope=budget_scope
    )
    llama(random_ids(1, 300), past_key_values=cache)
    cache.evict()
    assert cache.stats().stored_tokens == 75
    assert cache.nbytes < 0.5 * cache.full_nbytes
    tensors, _ = cache.state()
    assert sum(tensor.nbytes for tensor in tensors.values()) < 0.5 * cache.full_nbytes
    for piece in random_ids(1, 300, seed=1).split(212, 1):  # ends at 512
        llama(piece, past_key_values=cache)
    assert cache.stats().stored_tokens == 512 // 4 + 88


def test_eviction_steps_at_any_length_carries_partial_hops(llama):
    """Eviction steps wherever the text pauses give the NAMM the same features as one at the end."""
    ids = random_ids(1, 203)
    features = []
    for cuts in ([203], [64, 96, 43], [17, 50, 1, 100, 35]):
        policy = NammPolicy(Namm.zeros(), exact=True)
        cache = ManagedCache.for_model(llama, policy=policy, interval=1000)
        for piece in ids.split(cuts, 1):
            llama(piece, past_key_values=cache)
            for layer in cache.managed:
                evict([layer], 0, num_layers=len(cache.managed))
        features.append(
            [
                segment.state
                for layer in cache.managed
                for segment in layer.sequences[0].retained.heads()
            ]
        )
    for other in features[1:]:
        for a, b in zip(features[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
