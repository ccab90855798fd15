"""LangChain's messages and answer formats as `namm_llm` takes them, and its numbers as LangChain
takes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, convert_to_openai_messages
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.utils.function_calling import convert_to_json_schema
from namm_integrations.call import logprobs_of, numbers_of

from namm_llm import Generation, UsageError, response_schema

_SILENT = ("tool_use", "tool_call", "reasoning", "thinking")  # not for the model's eyes


def to_openai(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Mappings with role, content and what else belongs to them. UsageError for content that is no
    text.
    """
    return [_one(message) for message in messages]


def _one(message: BaseMessage) -> dict[str, Any]:
    if isinstance(message, ChatMessage):
        return {"role": message.role, "content": message.content}
    if not isinstance(message.content, str):
        content = _texts(message.content, is_answer=isinstance(message, AIMessage))
        message = message.model_copy(update={"content": content})
    try:
        found = convert_to_openai_messages(message)
    except ValueError as error:
        raise UsageError(f"the model cannot read a message: {error}.") from error
    assert isinstance(found, dict)
    return found


def _texts(content: list[Any], *, is_answer: bool) -> list[Any]:
    """Blocks of plain text as text; of an answer without thoughts and calls, which stand in
    `tool_calls` too.
    """
    kinds = [part.get("type") if isinstance(part, dict) else "" for part in content]
    return [
        {"type": "text", "text": part.get("text", "")} if kind == "text-plain" else part
        for part, kind in zip(content, kinds, strict=True)
        if not (is_answer and kind in _SILENT)
    ]


def answer_schema(response_format: Any) -> Any:
    """The JSON schema of OpenAI's `response_format`, or of a class; None for free text. UsageError
    for another one.
    """
    if not isinstance(response_format, Mapping):
        return None if response_format is None else convert_to_json_schema(response_format)
    return response_schema(response_format)


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
        **logprobs_of(generation),
    }
