"""Other decoders of transformers through the same seam, with and without a sliding window."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.gemma3 import Gemma3TextConfig
from transformers.models.mistral import MistralConfig
from transformers.models.phi3 import Phi3Config
from transformers.models.qwen2 import Qwen2Config
from transformers.models.qwen3 import Qwen3Config

from namm_llm.cache import ManagedCache
from namm_llm.config import make_cache_config
from namm_llm.errors import CacheError, ModelError
from tests.architectures import VOCABULARY, random_ids

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
MODELS = {
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE),
    "phi3": Phi3Config(**SHAPE),
    "gemma3, half of it sliding": Gemma3TextConfig(
        **SHAPE, sliding_window=32, layer_types=["sliding_attention", "full_attention"]
    ),
}


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_nothing_evicted_equals_transformers_and_eviction_frees_memory(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = random_ids(1, 150)
    expected = model.generate(ids, max_new_tokens=20, do_sample=False)
    cache = ManagedCache.for_model(model, interval=64)
    assert (
        model.generate(ids, max_new_tokens=20, do_sample=False, past_key_values=cache).tolist()
        == expected.tolist()
    )
    evicting = ManagedCache.for_model(model, policy="h2o", budget=0.25, interval=64)
    model.generate(ids, max_new_tokens=20, do_sample=False, past_key_values=evicting)
    assert evicting.stats().kept_fraction < 0.6
    assert evicting.nbytes < cache.nbytes


def test_a_model_with_sliding_windows_alone_is_refused():
    model = AutoModelForCausalLM.from_config(MistralConfig(**SHAPE, sliding_window=32))
    with pytest.raises(ModelError, match="only sliding-window layers"):
        ManagedCache.for_model(model)


def sliding() -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(MODELS["gemma3, half of it sliding"]).eval()


@pytest.mark.parametrize("length", [20, 150])
def test_a_cache_with_sliding_windows_is_saved_and_goes_on_alike(length):
    """Shorter and longer than the window of 32 tokens."""
    model, ids = sliding(), random_ids(2, length + 40)
    config = make_cache_config("h2o", budget=0.5, interval=64)
    cache = ManagedCache.for_model(model, config)
    model(ids[:, :length], past_key_values=cache)
    tensors, metadata = cache.state()
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    again = ManagedCache.from_state(saved, metadata, model=model, config=config)
    expected = model(ids[:, length:], past_key_values=cache).logits
    assert torch.equal(model(ids[:, length:], past_key_values=again).logits, expected)


def test_caches_with_full_sliding_windows_are_a_batch():
    model, ids = sliding(), random_ids(2, 140)
    alone = [ManagedCache.for_model(model, "h2o", budget=0.5, interval=64) for _ in range(2)]
    for row, (cache, length) in enumerate(zip(alone, (90, 100), strict=True)):
        model(ids[row : row + 1, :length], past_key_values=cache)
    batch = ManagedCache.join(alone)
    new = torch.stack([ids[0, 90:130], ids[1, 100:140]])
    positions = torch.stack([torch.arange(90, 130), torch.arange(100, 140)])
    found = model(new, position_ids=positions, past_key_values=batch).logits
    for row, cache in enumerate(alone):
        single = model(
            new[row : row + 1], position_ids=positions[row : row + 1], past_key_values=cache
        ).logits
        torch.testing.assert_close(found[row : row + 1], single, atol=1e-4, rtol=1e-4)


def test_caches_with_unequal_sliding_windows_are_no_batch():
    model = sliding()
    caches = [ManagedCache.for_model(model, interval=64) for _ in range(2)]
    for cache, length in zip(caches, (10, 100), strict=True):
        model(random_ids(1, length), past_key_values=cache)
    with pytest.raises(CacheError, match="equally many tokens; ask one question at a time"):
        ManagedCache.join(caches)


def test_a_quarter_of_the_tokens_looks_smaller_than_all_of_them():
    model = sliding()
    cache = ManagedCache.for_model(model, "keydiff", budget=0.25, interval=64)
    for piece in random_ids(1, 640).split(64, 1):
        model(piece, past_key_values=cache)
    assert cache.nbytes < 0.5 * cache.full_nbytes
    assert cache.full_nbytes == 640 * 2 * 2 * 16 * 4 + 31 * 2 * 2 * 16 * 4  # full, then sliding
