"""What LangChain is told of an answer: usage, finish reason, and the numbers of the cache."""

from __future__ import annotations

from typing import Any

from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from namm_integrations.numbers import numbers_of

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
        "namm": numbers_of(generation),
    }
