"""Inside transformers' own `generate`, and what cannot work there."""

from __future__ import annotations

import pytest
import torch

from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config
from namm_llm.errors import CacheError, ModelError
from tests import dense
from tests.architectures import random_ids, random_llama
from tests.cache.test_eviction import policy_of

EVICTION = make_cache_config("h2o", budget=0.3, interval=40, budget_scope="layer")


def test_sampling_without_eviction_equals_transformers(llama):
    ids = random_ids(2, 70)
    outputs = []
    for cache in (None, ManagedCache.for_model(llama)):
        torch.manual_seed(7)
        outputs.append(
            llama.generate(
                ids, max_new_tokens=60, do_sample=True, top_k=20, past_key_values=cache
            ).tolist()
        )
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("beams", [2, 4])
def test_beam_search_without_eviction_equals_transformers(llama, beams):
    ids = random_ids(2, 70)
    expected = llama.generate(ids, max_new_tokens=40, num_beams=beams, num_return_sequences=beams)
    cache = ManagedCache.for_model(llama, policy="full", interval=32)
    got = llama.generate(
        ids, max_new_tokens=40, num_beams=beams, num_return_sequences=beams, past_key_values=cache
    )
    assert got.tolist() == expected.tolist()


def test_beam_search_under_eviction_scores_as_reading_its_answer(llama):
    """The best beam's tokens, read by a cache with the same settings, have the probabilities that
    the search saw.
    """
    ids = random_ids(1, 90)
    cache = ManagedCache.for_model(llama, EVICTION)
    out = llama.generate(
        ids,
        max_new_tokens=50,
        num_beams=3,
        past_key_values=cache,
        return_dict_in_generate=True,
        output_scores=True,
        length_penalty=0.0,
    )
    again = ManagedCache.for_model(llama, EVICTION)
    logits = llama(out.sequences, past_key_values=again).logits[0, 89:-1].log_softmax(-1)
    total = logits.gather(1, out.sequences[0, 90:, None]).sum()
    torch.testing.assert_close(total, out.sequences_scores[0], atol=1e-3, rtol=0)


def test_several_returned_sequences(llama):
    cache = ManagedCache.for_model(llama, EVICTION)
    out = llama.generate(
        random_ids(1, 90),
        max_new_tokens=50,
        do_sample=True,
        num_return_sequences=3,
        past_key_values=cache,
    )
    assert out.shape == (3, 140)
    assert cache.seen_tokens() == [139] * 3


def test_a_conversation_goes_on_in_the_same_cache(llama):
    ids = random_ids(1, 200)
    cache = ManagedCache.for_model(llama, EVICTION)
    first = llama.generate(ids[:, :100], max_new_tokens=10, do_sample=False, past_key_values=cache)
    second = torch.cat([first, ids[:, 100:]], 1)
    got = llama.generate(second, max_new_tokens=10, do_sample=False, past_key_values=cache)
    whole = ManagedCache.for_model(llama, EVICTION)
    assert (
        got.tolist()
        == llama.generate(
            second, max_new_tokens=10, do_sample=False, past_key_values=whole
        ).tolist()
    )


def test_forks_are_independent_and_share_retained_tokens(llama):
    ids, tail = random_ids(1, 150), random_ids(2, 60, seed=1)
    cache = ManagedCache.for_model(llama, EVICTION)
    llama(ids, past_key_values=cache)
    before = dense.stored_positions(cache)
    forks = [cache.fork(), cache.fork()]
    assert {f.managed[0].sequences[0].retained.keys.data_ptr() for f in [cache, *forks]} == {
        cache.managed[0].sequences[0].retained.keys.data_ptr()
    }
    logits = [llama(tail[i : i + 1], past_key_values=fork).logits for i, fork in enumerate(forks)]
    batch = ManagedCache.join([cache, cache])
    torch.testing.assert_close(
        llama(tail, past_key_values=batch).logits, torch.cat(logits), atol=1e-4, rtol=0
    )
    for layer, stored in dense.stored_positions(cache).items():
        assert torch.equal(stored, before[layer])
    alone = ManagedCache.for_model(llama, EVICTION)
    expected = llama(torch.cat([ids, tail[:1]], 1), past_key_values=alone).logits[:, 150:]
    torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=0)


def test_recent_tokens_can_be_taken_back(llama):
    ids = random_ids(1, 100)
    cache = ManagedCache.for_model(llama, EVICTION)
    llama(ids, past_key_values=cache)
    cache.crop(-15)
    again = llama(ids[:, 85:], past_key_values=cache).logits
    fresh = ManagedCache.for_model(llama, EVICTION)
    torch.testing.assert_close(
        again, llama(ids, past_key_values=fresh).logits[:, 85:], atol=1e-4, rtol=0
    )
    with pytest.raises(
        CacheError, match="21 tokens cannot be taken back: an eviction step has already been run"
    ):
        cache.crop(-21)


def test_what_cannot_work_says_so(llama):
    ids = random_ids(1, 50)
    with pytest.raises(CacheError, match="assisted decoding takes tokens back"):
        llama.generate(
            ids,
            past_key_values=ManagedCache.for_model(llama),
            prompt_lookup_num_tokens=3,
            max_new_tokens=5,
        )
    model_wide = ManagedCache.for_model(
        llama, policy="knorm", budget=0.5, interval=20, budget_scope="model"
    )
    with pytest.raises(CacheError, match="read in chunks that end at multiples of 20"):
        llama.generate(ids, past_key_values=model_wide, max_new_tokens=5)
    used = ManagedCache.for_model(llama)
    llama.generate(ids, past_key_values=used, max_new_tokens=5)
    with pytest.raises(CacheError, match="holds all of these tokens already"):
        llama.generate(ids[:, -1:], past_key_values=used, max_new_tokens=5)
    cache = ManagedCache.for_model(llama)
    llama(random_ids(2, 5), past_key_values=cache)
    with pytest.raises(CacheError, match="the cache holds 2 sequences, the model was given 1"):
        llama(ids, past_key_values=cache)
    with pytest.raises(CacheError, match="4D attention mask"):
        llama(
            ids,
            past_key_values=ManagedCache.for_model(llama),
            attention_mask=torch.zeros(1, 1, 50, 50),
        )


def test_other_dtypes_and_head_counts():
    for heads, kv_heads in [(4, 4), (8, 1)]:
        model = random_llama(heads=heads, kv_heads=kv_heads, layers=2, dtype=torch.bfloat16)
        cache = ManagedCache.for_model(model, EVICTION)
        out = model.generate(
            random_ids(1, 90), max_new_tokens=50, past_key_values=cache, do_sample=False
        )
        assert out.shape == (1, 140)
        assert cache.stats().kept_fraction < 0.5


def test_encoder_decoder_models_are_refused():
    from transformers import T5Config, T5ForConditionalGeneration

    tiny = T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
    )
    with pytest.raises(ModelError, match="encoder-decoder"):
        ManagedCache.for_model(tiny)


@pytest.mark.parametrize("policy", ["full", "h2o", "namm"])
def test_save_restore_continue_equals_never_saved(llama, policy):
    ids = random_ids(2, 260)
    eviction = make_cache_config(
        policy_of(policy),
        budget=None if policy == "full" else 0.3,
        interval=40,
        budget_scope="layer",
    )
    cache = ManagedCache.for_model(llama, eviction)
    llama(ids[:, :173], past_key_values=cache)
    tensors, metadata = cache.state()
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    expected = llama(ids[:, 173:], past_key_values=cache).logits
    restored = ManagedCache.from_state(saved, metadata, model=llama, config=eviction)
    assert torch.equal(llama(ids[:, 173:], past_key_values=restored).logits, expected)
    with pytest.raises(CacheError, match="load it with these settings"):
        ManagedCache.from_state(
            saved, metadata, model=llama, config=make_cache_config("tova", budget=0.3)
        )
    del saved["1.0.keys"]
    with pytest.raises(CacheError, match="damaged or of another model"):
        ManagedCache.from_state(saved, metadata, model=llama, config=eviction)
