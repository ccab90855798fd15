"""Layers that see a bounded stretch of tokens, beside layers that evict and alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.gemma3 import Gemma3TextConfig
from transformers.models.llama4 import Llama4TextConfig
from transformers.models.mistral import MistralConfig
from transformers.models.phi3 import Phi3Config
from transformers.models.qwen3 import Qwen3Config

from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config
from namm_llm.errors import CacheError, ModelError
from tests.architectures import SHAPE, random_ids
from tests.cache.test_eviction import random_namm

WINDOW = 32
MODELS = {
    "gemma3": Gemma3TextConfig(
        **SHAPE, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]
    ),
    "qwen3": Qwen3Config(
        **SHAPE, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "llama4": Llama4TextConfig(
        **SHAPE,
        attention_chunk_size=WINDOW,
        layer_types=["chunked_attention", "full_attention"],
        num_local_experts=2,
        intermediate_size_mlp=128,
    ),
    "mistral": MistralConfig(**SHAPE, sliding_window=WINDOW),
    "phi3": Phi3Config(**SHAPE, sliding_window=WINDOW),
}
ALONE = ("mistral", "phi3")  # every layer has a window
SETTINGS = {
    "full": {"policy": "full"},
    "replay": {"policy": "replay", "budget": 0.5},
    "replay, ample": {"policy": "replay", "budget": 1000},
    "namm": {"policy": "namm"},
    "namm, half": {"policy": "namm", "budget": 0.5},
}
CASES = [(name, own) for name in ("gemma3", "qwen3") for own in SETTINGS]
CASES += [(name, "full") for name in ("llama4", *ALONE)]
LENGTHS = (10, 45, 150)  # below the window, beyond it, and beyond several


def model_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config: PretrainedConfig = MODELS[name]
    return AutoModelForCausalLM.from_config(config).eval()


def read(model, cache, ids, sizes):
    """Logits of `ids`, read in pieces of these sizes, the last one of what is left."""
    borders = [0]
    for size in sizes:
        borders.append(borders[-1] + size)
    pieces = [ids[:, start:stop] for start, stop in pairwise([*borders, ids.shape[1]])]
    return torch.cat([model(p, past_key_values=cache).logits for p in pieces if p.shape[1]], 1)


@pytest.mark.parametrize(
    "sizes",
    [[], [1] * 70, [31, 1, 1], [32], [33], [20, 30, 64], [63, 2], [64, 64]],
    ids=lambda sizes: "+".join(map(str, sizes[:3])) or "whole",
)
@pytest.mark.parametrize("name", MODELS)
def test_chunks_may_cross_the_edge_of_the_window(name, sizes):
    model, ids = model_of(name), random_ids(1, 150)
    expected = model(ids, use_cache=False).logits
    found = read(model, ManagedCache.for_model(model, interval=48), ids, sizes)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def decode_alone(model, cache, tokens, start):
    """Logits `[T, V]` of tokens `[T]`, one after the other."""
    found = []
    for step, token in enumerate(tokens):
        position = torch.tensor([[start + step]])
        out = model(token.view(1, 1), position_ids=position, past_key_values=cache)
        found.append(out.logits[0, 0])
    return torch.stack(found)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_rows_of_any_lengths_are_a_batch(name, settings):
    """Each decodes 40 tokens, so that every window fills up or moves on."""
    model, own = model_of(name), dict(SETTINGS[settings])
    if own["policy"] == "namm":
        own["namm"] = random_namm()
    caches = [ManagedCache.for_model(model, **own, interval=32) for _ in LENGTHS]
    for row, (cache, length) in enumerate(zip(caches, LENGTHS, strict=True)):
        model(random_ids(1, length, seed=row), past_key_values=cache)
    batch, new = ManagedCache.join(caches), random_ids(len(LENGTHS), 40, seed=9)
    start = torch.tensor(LENGTHS)[:, None]
    found = torch.cat(
        [
            model(new[:, [t]], position_ids=start + t, past_key_values=batch).logits
            for t in range(new.shape[1])
        ],
        1,
    )
    for row, cache in enumerate(caches):
        expected = decode_alone(model, cache, new[row], LENGTHS[row])
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)
        assert batch.seen_tokens()[row] == cache.seen_tokens()[0] == LENGTHS[row] + 40


@pytest.mark.parametrize("settings", [{}, {"policy": "h2o", "budget": 0.5}], ids=["all", "half"])
def test_padded_prompts_give_what_they_give_alone(settings):
    model = model_of("gemma3")
    ids, mask = torch.zeros(3, 150, dtype=torch.long), torch.zeros(3, 150, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        ids[row, -length:], mask[row, -length:] = random_ids(1, length, seed=row), 1
    options = {"max_new_tokens": 40, "do_sample": False}
    batch = ManagedCache.for_model(model, **settings, interval=32)
    found = model.generate(ids, attention_mask=mask, past_key_values=batch, **options)
    for row, length in enumerate(LENGTHS):
        alone = ManagedCache.for_model(model, **settings, interval=32)
        expected = model.generate(ids[row : row + 1, -length:], past_key_values=alone, **options)
        assert found[row, 150:].tolist() == expected[0, length:].tolist()


def test_beams_follow_their_own_windows():
    model, ids = model_of("gemma3"), random_ids(2, 50)
    options = {"num_beams": 3, "max_new_tokens": 30, "do_sample": False}
    cache = ManagedCache.for_model(model, interval=16)
    found = model.generate(ids, past_key_values=cache, **options)
    assert found.tolist() == model.generate(ids, **options).tolist()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", MODELS)
def test_a_saved_cache_goes_on_alike(name, length):
    model, ids = model_of(name), random_ids(2, length + 40)
    evicting = {} if name in ALONE else {"policy": "h2o", "budget": 0.5}
    config = make_cache_config(**evicting, interval=64)
    cache = ManagedCache.for_model(model, config)
    model(ids[:, :length], past_key_values=cache)
    tensors, metadata = cache.state()
    saved = {key: tensor.clone() for key, tensor in tensors.items()}
    again = ManagedCache.from_state(saved, metadata, model=model, config=config)
    assert again.seen_tokens() == [length, length]
    expected = model(ids[:, length:], past_key_values=cache).logits
    assert torch.equal(model(ids[:, length:], past_key_values=again).logits, expected)


def test_a_saved_window_that_lacks_tokens_is_refused():
    model = model_of("gemma3")
    cache = ManagedCache.for_model(model)
    model(random_ids(1, 50), past_key_values=cache)
    tensors, metadata = cache.state()
    for name in ("0.0.keys", "0.0.values"):
        damaged = {**tensors, name: tensors[name][:, 1:]}
        with pytest.raises(CacheError, match="tokens of a sliding window are missing"):
            ManagedCache.from_state(damaged, metadata, model=model, config=cache.config)


def test_forks_share_a_window_and_go_their_own_ways():
    model, ids, tail = model_of("gemma3"), random_ids(1, 50), random_ids(2, 40, seed=1)
    cache = ManagedCache.for_model(model)
    model(ids, past_key_values=cache)
    forks = [cache.fork(), cache.fork()]
    keys = cache.layers[0].sequences[0].keys
    assert all(fork.layers[0].sequences[0].keys is keys for fork in forks)
    for row, fork in enumerate(forks):
        whole = torch.cat([ids, tail[row : row + 1]], 1)
        found = model(tail[row : row + 1], past_key_values=fork).logits
        expected = model(whole, use_cache=False).logits[:, 50:]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_long_prompt_leaves_only_the_window_in_memory():
    model = model_of("gemma3")
    cache = ManagedCache.for_model(model)
    model(random_ids(1, 2000), past_key_values=cache)
    window = cache.layers[0].sequences[0]
    assert window.keys.untyped_storage().nbytes() == (WINDOW - 1) * 2 * 16 * 4
    model(random_ids(1, 1), past_key_values=cache)
    assert window.keys.untyped_storage().nbytes() == WINDOW * 2 * 16 * 4


def test_tokens_are_taken_back_while_the_window_has_lost_none():
    model, ids = model_of("gemma3"), random_ids(1, 60)
    cache = ManagedCache.for_model(model)
    model(ids[:, :30], past_key_values=cache)
    cache.crop(-12)
    found = model(ids[:, 18:], past_key_values=cache).logits
    expected = model(ids, use_cache=False).logits[:, 18:]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(CacheError, match="5 tokens cannot be taken back"):
        cache.crop(-5)
    assert {layer.get_seq_length() for layer in cache.layers} == {60}  # none of them was cut


@pytest.mark.parametrize("name", ALONE)
def test_a_model_that_has_only_windows_cannot_evict(name):
    model = model_of(name)
    with pytest.raises(ModelError, match="more than their 32 newest tokens: there is"):
        ManagedCache.for_model(model, policy="h2o", budget=0.5)
    cache = ManagedCache.for_model(model)
    model(random_ids(1, 150), past_key_values=cache)
    stats = cache.stats()
    assert (stats.seen_tokens, stats.stored_tokens, stats.eviction_steps) == (150, WINDOW - 1, 0)
    assert stats.kept_fraction == pytest.approx((WINDOW - 1) / 150)
    assert stats.nbytes == stats.full_nbytes == 2 * 2 * (WINDOW - 1) * 2 * 16 * 4


def test_a_quarter_of_the_tokens_looks_smaller_than_all_of_them():
    model = model_of("gemma3")
    cache = ManagedCache.for_model(model, "keydiff", budget=0.25, interval=64)
    for piece in random_ids(1, 640).split(64, 1):
        model(piece, past_key_values=cache)
    assert cache.nbytes < 0.5 * cache.full_nbytes
    assert cache.full_nbytes == 640 * 2 * 2 * 16 * 4 + 31 * 2 * 2 * 16 * 4  # full, then sliding
