"""What is timed: a chunked prefill and a greedy decoding, the same loop for every cache."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache

from namm_llm import ManagedCache, make_eviction

CHUNK = 512
MakeCache = Callable[[], Cache]


def transformers_cache(model: PreTrainedModel) -> MakeCache:
    """transformers' own full cache with its SDPA attention."""

    def make() -> Cache:
        model.set_attn_implementation("sdpa")
        return DynamicCache(config=model.config)

    return make


def managed_cache(model: PreTrainedModel, **settings: object) -> MakeCache:
    """Our cache; settings as of `make_eviction`."""
    eviction = make_eviction(**settings)
    return lambda: ManagedCache.for_model(model, eviction=eviction)


@torch.inference_mode()
def read(model: PreTrainedModel, ids: torch.Tensor, cache: Cache, chunk: int = CHUNK) -> tuple[float, torch.Tensor]:
    """Seconds to read `ids` `[1, T]` in chunks, and the logits of the last token."""
    start = time.perf_counter()
    for piece in ids.split(chunk, 1):
        logits = model(piece, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    return time.perf_counter() - start, logits[:, -1:]


@torch.inference_mode()
def decode(model: PreTrainedModel, logits: torch.Tensor, cache: Cache, tokens: int) -> float:
    """Seconds to decode `tokens` greedily."""
    start = time.perf_counter()
    for _ in range(tokens):
        logits = model(logits.argmax(-1), past_key_values=cache, use_cache=True).logits
    return time.perf_counter() - start
