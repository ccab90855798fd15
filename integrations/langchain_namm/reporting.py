"""What LangChain is told of an answer: usage, finish reason, and the numbers of the cache."""

from __future__ import annotations

from typing import Any

from langchain_core.messages.ai import InputTokenDetails, UsageMetadata

from namm_llm import Generation


def usage(generation: Generation) -> UsageMetadata:
    """Tokens; `cache_read` are those of the prompt that were not computed again."""
    used = generation.usage
    return UsageMetadata(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        total_tokens=used.input_tokens + used.output_tokens,
        input_token_details=InputTokenDetails(cache_read=used.cached_tokens),
    )


def metadata(generation: Generation, finish_reason: str | None = None) -> dict[str, Any]:
    """For `response_metadata` and `generation_info`."""
    return {
        "model_name": generation.model,
        "model_provider": "namm",
        "finish_reason": finish_reason or generation.finish_reason,
        "namm": cache_numbers(generation),
    }


def cache_numbers(generation: Generation) -> dict[str, Any]:
    """kept_tokens, evicted_tokens: for each KV head, on average. full_cache_bytes: keys and values,
    had nothing been evicted.
    """
    cache, times = generation.cache, generation.timings
    decoded = max(generation.usage.output_tokens - 1, 0)  # the first comes from reading the prompt
    return {
        "policy": cache.policy,
        "seen_tokens": cache.seen_tokens,
        "kept_tokens": cache.stored_tokens,
        "evicted_tokens": cache.seen_tokens - cache.stored_tokens,
        "cache_bytes": cache.nbytes,
        "full_cache_bytes": cache.full_nbytes,
        "tokens_per_second": decoded / times.decode_seconds if times.decode_seconds > 0 else 0.0,
        "first_token_seconds": times.first_token_seconds,
        "prefill_seconds": times.prefill_seconds,
    }
