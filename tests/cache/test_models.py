"""Other decoders of transformers through the same seam."""

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
from tests.architectures import SHAPE, random_ids

MODELS = {
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE),
    "phi3": Phi3Config(**SHAPE),
    "gemma3": Gemma3TextConfig(
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
