"""LangChain's messages to the form that `namm_llm` takes, and tool choices in all their spellings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, convert_to_openai_messages

from namm_llm import UsageError


def to_openai(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Mappings with role, content and what else belongs to them."""
    return [_one(message) for message in messages]


def _one(message: BaseMessage) -> dict[str, Any]:
    if isinstance(message, ChatMessage):
        return {"role": message.role, "content": message.content}
    if isinstance(message, AIMessage) and not isinstance(message.content, str):
        message = message.model_copy(update={"content": _said(message.content)})
    found = convert_to_openai_messages(message)
    assert isinstance(found, dict)
    return found


def _said(content: list[Any]) -> list[Any]:
    """What an answer said: thoughts and calls, which stand in `tool_calls` too, are no text for the
    model.
    """
    return [
        part
        for part in content
        if isinstance(part, str)
        or part.get("type") not in ("tool_use", "tool_call", "reasoning", "thinking")
    ]


def tool_choice(choice: Any, names: Sequence[str]) -> str:
    """auto, none, required or the name of a tool. UsageError for a tool that there is not."""
    if isinstance(choice, dict):
        choice = choice.get("function", choice).get("name") or choice.get("type")
    if choice in (None, False, "auto"):
        return "auto"
    if choice in (True, "any", "required"):
        return "required"
    if choice != "none" and choice not in names:
        raise UsageError(
            f"tool_choice names {choice!r}; the tools are {', '.join(names) or 'none at all'}."
        )
    return str(choice)
