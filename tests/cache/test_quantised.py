"""8-bit keys and values: how far off they are, what they cost, and that everything else stays as it
was.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from namm_llm.attention import grouped
from namm_llm.attention.grouped import grouped_attention
from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config
from namm_llm.errors import UsageError
from namm_llm.tokens import HeadTokens, RaggedTokens, quantise
from tests.architectures import random_ids, random_llama
from tests.cache.test_eviction import policy_of, reachable_nbytes
from tests.cache.test_memory import LargestAllocation
from tests.cache.test_no_eviction import left_padded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_number_is_off_by_half_a_step(dtype):
    rows = (
        torch.randn(50, 33, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-3, 3, 50)[:, None]
    )
    rows = rows.to(dtype)
    rows[7] = 0.0
    steps, scale = quantise(rows)
    assert (steps.dtype, scale.dtype, scale.shape) == (torch.int8, dtype, (50, 1))
    off = (steps.float() * scale.float() - rows.float()).abs().amax(1)
    # in half precision the scale itself is rounded, so the largest number may be cut by a little
    # more
    assert (
        off <= rows.float().abs().amax(1) / 254 * (1.001 if dtype == torch.float32 else 2)
    ).all()


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("lengths", [(9, 9), (13, 6), (0, 21)])
@pytest.mark.parametrize("new", [1, 4])
def test_attention_is_that_of_the_numbers_it_stands_for(monkeypatch, lengths, new):
    monkeypatch.setattr(grouped, "_PIECE", 5)
    segments = [
        HeadTokens(
            draw(n, 8, seed=n), draw(n, 8, seed=n + 1), torch.arange(n).int(), torch.zeros(n, 0)
        ).quantised()
        for n in lengths
    ]
    retained = RaggedTokens.gather(segments, [None, None])
    query, keys, values = draw(4, new, 8, seed=1), draw(2, 6, 8, seed=2), draw(2, 6, 8, seed=3)
    found = grouped_attention(query, retained, keys, values, scale=0.5)
    expected = grouped_attention(query, retained.floats(), keys, values, scale=0.5)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def read(model, ids, **settings) -> tuple[torch.Tensor, ManagedCache]:
    cache = ManagedCache.for_model(model, interval=50, **settings)
    return torch.cat(
        [model(piece, past_key_values=cache).logits for piece in ids.split(25, 1)], 1
    ).softmax(-1), cache


def test_a_full_cache_in_8_bits_says_nearly_the_same():
    model, ids = random_llama(), random_ids(2, 300)
    expected, whole = read(model, ids)
    found, cache = read(model, ids, kv_bits=8)
    # probabilities; 0.025 was seen, and this model's attention is far sharper than a trained one's,
    # which magnifies an error layer by layer
    assert 0 < (found - expected).abs().max() < 0.05
    assert (found - expected).abs().mean() < 1e-4
    assert whole.nbytes >= 3 * cache.nbytes  # of float32
    assert cache.stats().policy == "full, 8-bit"
    assert cache.full_nbytes == whole.full_nbytes == 2 * 300 * 3 * 2 * 2 * 16 * 4


def test_what_was_quantised_once_is_moved_as_it_is():
    model, ids = random_llama(), random_ids(1, 200)
    first, later = (
        read(model, ids[:, :n], policy=policy_of("streaming_llm"), budget=60, kv_bits=8)[1]
        for n in (50, 200)
    )
    for layer, before in zip(later.managed, first.managed, strict=True):
        for new, old in zip(
            layer.sequences[0].retained.heads(), before.sequences[0].retained.heads(), strict=True
        ):
            for name in (
                "keys",
                "values",
                "scales",
            ):  # the sinks came with the first eviction step and were there at each later one
                assert torch.equal(getattr(new, name)[:4], getattr(old, name)[:4])


@pytest.mark.parametrize("policy", ["full", "replay", "namm", "keydiff"])
def test_every_byte_is_counted_and_a_saved_cache_goes_on_alike(llama, policy):
    eviction = make_cache_config(
        policy_of(policy),
        budget=None if policy == "full" else 0.25,
        interval=64,
        budget_scope="layer",
        kv_bits=8,
    )
    cache = ManagedCache.for_model(llama, eviction)
    for piece in [*random_ids(2, 290).split(96, 1), *random_ids(2, 20, seed=1).split(1, 1)]:
        llama(piece, past_key_values=cache)
        assert cache.nbytes == reachable_nbytes(cache)
    tensors, metadata = cache.state()
    assert {tensors[f"0.0.{name}"].dtype for name in ("keys", "values")} == {torch.int8}
    assert tensors["0.0.scales"].shape == (len(tensors["0.0.keys"]), 2)
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    again = ManagedCache.from_state(copies, metadata, model=llama, config=eviction)
    fork, ids = cache.fork(), random_ids(2, 100, seed=2)
    assert fork.managed[0].sequences[0].retained is cache.managed[0].sequences[0].retained
    expected = llama(ids, past_key_values=cache).logits
    for other in (again, fork):
        assert torch.equal(llama(ids, past_key_values=other).logits, expected)


@pytest.mark.parametrize("policy", ["full", "replay"])
def test_a_batch_gives_what_its_sequences_give_alone(llama, policy):
    ids, mask = left_padded(3, 333)
    eviction = make_cache_config(
        policy, budget=None if policy == "full" else 0.25, interval=50, kv_bits=8
    )
    cache = ManagedCache.for_model(llama, eviction)
    together = llama.generate(
        ids, attention_mask=mask, max_new_tokens=30, do_sample=False, past_key_values=cache
    )
    for row in range(3):
        alone = ManagedCache.for_model(llama, eviction)
        single = llama.generate(
            ids[row : row + 1, mask[row].bool()],
            max_new_tokens=30,
            do_sample=False,
            past_key_values=alone,
        )
        assert together[row, 333:].tolist() == single[0, -30:].tolist()


def test_a_budget_in_bytes_keeps_more_tokens_in_8_bits(llama):
    kept = [
        read(llama, random_ids(1, 400), policy="keydiff", budget="150KB", kv_bits=bits)[1]
        for bits in (None, 8)
    ]
    assert all(cache.nbytes <= 150_000 for cache in kept)
    assert kept[1].stats().stored_tokens > 1.5 * kept[0].stats().stored_tokens


def test_a_decoded_token_makes_no_numbers_of_the_whole_cache(monkeypatch):
    torch.use_deterministic_algorithms(False)  # poisoning takes longer than reading
    monkeypatch.setattr(grouped, "_PIECE", 128)
    model, largest = random_llama(layers=1), []
    for length in (1024, 4096):
        cache = ManagedCache.for_model(model, kv_bits=8)
        for piece in random_ids(1, length + 1).split(512, 1):
            model(piece, past_key_values=cache, logits_to_keep=1)
        with LargestAllocation() as allocation:
            for token in random_ids(1, 20, seed=1).split(1, 1):
                model(token, past_key_values=cache)
        largest.append(allocation.nbytes)
    assert largest[0] == largest[1] > 0


class LargestFloats(LargestAllocation):
    """Numbers of the largest float tensor that any operation makes."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [
            t.numel()
            for t in tree_leaves(out)
            if isinstance(t, torch.Tensor) and t.is_floating_point()
        ]
        self.nbytes = max([self.nbytes, *sizes])
        return out


def test_an_eviction_step_makes_numbers_of_one_head_at_a_time():
    model = random_llama(heads=4, kv_heads=4, head_dim=64, layers=1)
    _, cache = read(model, random_ids(1, 600), kv_bits=8)
    layer = cache.managed[0]
    layer.sequences[0].config = replace(
        cache.config,
        policy=policy_of("knorm"),
        budget=make_cache_config("knorm", budget=0.5).budget,
    )
    model(random_ids(1, 49), past_key_values=cache)
    with LargestFloats() as largest:
        cache.evict()
    assert largest.nbytes == 649 * 64  # not four times as many


def test_other_numbers_of_bits_are_refused():
    with pytest.raises(UsageError, match=r"kv_bits must be .* 8, not 4"):
        make_cache_config(kv_bits=4)
