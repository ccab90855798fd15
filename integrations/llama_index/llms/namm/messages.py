"""LlamaIndex's messages as the runner takes them: dictionaries in the OpenAI form, as chat
templates know them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from namm_llm import UsageError

Message = dict[str, Any]
_ROLES = {
    MessageRole.DEVELOPER: "system",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.FUNCTION: "tool",
}
_SILENT = (ThinkingBlock, CachePoint)  # not for the model's eyes


def to_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """Role and content of each, with tool calls and their answers. UsageError for pictures, sound
    and files.
    """
    return [_to_message(message) for message in messages]


def with_system_prompt(
    messages: Sequence[ChatMessage], system_prompt: str | None
) -> list[ChatMessage]:
    """The messages behind the LLM's own system prompt, unless they bring one."""
    if not system_prompt or any(_role(message) == "system" for message in messages):
        return list(messages)
    return [ChatMessage(role=MessageRole.SYSTEM, content=system_prompt), *messages]


def _role(message: ChatMessage) -> str:
    return _ROLES.get(message.role, message.role.value)


def _to_message(message: ChatMessage) -> Message:
    texts, calls = [], []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ToolCallBlock):
            calls.append(_call(block))
        elif not isinstance(block, _SILENT):
            raise UsageError(
                f"the model reads text only, and a message holds a {type(block).__name__}; give "
                "its text instead."
            )
    found: Message = {"role": _role(message), "content": "\n".join(texts)}
    if calls:
        found["tool_calls"] = calls
    answered = message.additional_kwargs.get("tool_call_id")
    if found["role"] == "tool" and answered is not None:
        found["tool_call_id"] = answered
    if name := message.additional_kwargs.get("name"):
        found["name"] = name
    return found


def _call(block: ToolCallBlock) -> Message:
    # arguments may be text, empty or broken; namm_llm reads it, and says what is wrong
    return {
        "id": block.tool_call_id or block.tool_name,
        "type": "function",
        "function": {"name": block.tool_name, "arguments": block.tool_kwargs},
    }
