"""What the runner gives, as LlamaIndex's responses.

The numbers go into `raw` alone: LlamaIndex writes `additional_kwargs` into the next prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
    TextBlock,
)
from namm_integrations.call import logprobs_of, numbers_of

if TYPE_CHECKING:
    from namm_llm import Generation


def completion(text: str, delta: str, result: Generation | None) -> CompletionResponse:
    """text: all of it so far. delta: what is new. result: the whole answer, with the last response
    only.
    """
    return CompletionResponse(text=text, delta=delta, raw=raw(result))


def chat(text: str, delta: str, result: Generation | None) -> ChatResponse:
    """As `completion`."""
    message = ChatMessage(role=MessageRole.ASSISTANT, blocks=[TextBlock(text=text)])
    return ChatResponse(message=message, delta=delta, raw=raw(result))


def raw(result: Generation | None) -> dict[str, Any] | None:
    """`usage` as LlamaIndex's token counters read it, and in `namm` what the cache kept; ready for
    JSON.
    """
    if result is None:
        return None
    usage = result.usage
    return {
        "model": result.model,
        "finish_reason": result.finish_reason,
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
            "cached_tokens": usage.cached_tokens,
        },
        "namm": numbers_of(result),
        **logprobs_of(result),
    }
