"""Nothing evicted = transformers' own full cache."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from namm_llm.cache import ManagedCache
from namm_llm.namm import Namm
from tests.architectures import random_ids

KEEPS_ALL = {
    "full": {"policy": "full"},
    "zero_namm": {"policy": "namm", "namm": Namm.zeros()},
    "zero_namm_reference_mode": {
        "policy": "namm",
        "namm": Namm.zeros(),
        "budget_scope": "padded",
        "interval": 64,
    },
    "whole_budget": {"policy": "h2o", "budget": 1.0, "interval": 96},
}
PROMPT = 530  # no multiple of 16, and an eviction step in between


@pytest.fixture(params=KEEPS_ALL)
def settings(request):
    return KEEPS_ALL[request.param]


@pytest.mark.parametrize("chunk", [1, 16, 100, 512, PROMPT])
def test_logits_equal_the_dense_cache(llama, settings, chunk):
    ids = random_ids(1, PROMPT)
    dense = llama(ids, past_key_values=DynamicCache(config=llama.config)).logits
    cache = ManagedCache.for_model(llama, **settings)
    pieces = [llama(piece, past_key_values=cache).logits for piece in ids.split(chunk, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), dense, atol=1e-4, rtol=0)
    assert cache.kept_tokens() == [[[PROMPT] * 2]] * 3
    assert cache.get_seq_length() == PROMPT


@pytest.mark.parametrize("chunk", [None, 16, 100, 512])
def test_greedy_generate_equals_transformers(llama, settings, chunk):
    ids = random_ids(1, PROMPT)
    expected = llama.generate(ids, max_new_tokens=32, do_sample=False)
    cache = ManagedCache.for_model(llama, **settings)
    got = llama.generate(
        ids, max_new_tokens=32, do_sample=False, past_key_values=cache, prefill_chunk_size=chunk
    )
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("chunk", [None, 16, 100])
def test_unequal_prompts_in_a_batch(llama, settings, chunk):
    ids, mask = left_padded(3, PROMPT)
    expected = llama.generate(ids, attention_mask=mask, max_new_tokens=24, do_sample=False)
    cache = ManagedCache.for_model(llama, **settings)
    got = llama.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=24,
        do_sample=False,
        past_key_values=cache,
        prefill_chunk_size=chunk,
    )
    assert got.tolist() == expected.tolist()
    assert cache.seen_tokens() == [int(row.sum()) + 23 for row in mask]


def test_the_model_still_works_with_transformers_caches(llama):
    ids, mask = left_padded(2, 60)
    expected = llama.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
    ManagedCache.for_model(llama)
    for implementation in ("namm_llm", "eager"):
        llama.set_attn_implementation(implementation)
        got = llama.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
        assert got.tolist() == expected.tolist()


def left_padded(batch: int, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of `longest`, `longest - 37`, ... tokens."""
    ids = random_ids(batch, longest)
    mask = torch.ones_like(ids)
    for row in range(batch):
        ids[row, : 37 * row], mask[row, : 37 * row] = 0, 0
    return ids, mask
