"""LlamaIndex's messages as the runner takes them: dictionaries in the OpenAI form, as chat
templates know them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ImageBlock,
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
    """Role and content of each, with tool calls and their answers. UsageError for sound, files."""
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
    texts, calls, pictures = [], [], list[Message]()
    for block in message.blocks:
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ToolCallBlock):
            calls.append(_call(block))
        elif isinstance(block, ImageBlock):
            pictures.append(_picture(block))
        elif not isinstance(block, _SILENT):
            raise UsageError(
                f"the model reads text only, and a message holds a {type(block).__name__}; give "
                "its text instead."
            )
    found: Message = {"role": _role(message), "content": "\n".join(texts)}
    if pictures:  # in front, as chat templates have them
        found["content"] = [*pictures, {"type": "text", "text": found["content"]}]
    if calls:
        found["tool_calls"] = calls
    answered = message.additional_kwargs.get("tool_call_id")
    if found["role"] == "tool" and answered is not None:
        found["tool_call_id"] = answered
    if name := message.additional_kwargs.get("name"):
        found["name"] = name
    return found


def _picture(block: ImageBlock) -> Message:
    """A picture as the runner takes it; nothing is fetched."""
    if block.image is not None:
        data = block.image if isinstance(block.image, bytes) else block.image.read()
        kind = block.image_mimetype or "image/png"
        return {"type": "image", "base64": data.decode(), "mime_type": kind}
    if block.path is not None:
        return {"type": "image", "image": block.path}
    return {"type": "image_url", "image_url": {"url": str(block.url)}}


def _call(block: ToolCallBlock) -> Message:
    # arguments may be text, empty or broken; namm_llm reads it, and says what is wrong
    return {
        "id": block.tool_call_id or block.tool_name,
        "type": "function",
        "function": {"name": block.tool_name, "arguments": block.tool_kwargs},
    }
