"""Items of the Responses interface, and the messages that chat templates know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from namm_llm.errors import UsageError
from namm_llm.models.tools import ToolCall

Item = dict[str, Any]
_TEXTS = ("input_text", "output_text", "text")
_FILES = ("image", "video", "picture", "input_image")  # could name files of this machine


def messages_of(given: str | Sequence[Item]) -> list[Item]:
    """The messages of an input. UsageError for an item that is none."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages = list[Item]()
    for item in given:
        kind = item.get("type", "message")
        if kind == "message":
            messages.append(_message(item))
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments", "{}")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            if messages and messages[-1].get("tool_calls"):  # calls of one answer
                messages[-1]["tool_calls"].append(call)
            else:
                messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        elif kind == "function_call_output":
            output = _text(item.get("output", ""))
            id = item.get("call_id")
            messages.append({"role": "tool", "tool_call_id": id, "content": output})
        elif kind != "reasoning":  # which is not for the model's eyes
            raise UsageError(f"input: an item of the type {kind!r} is not supported.")
    return messages


def _message(item: Item) -> Item:
    role = {"developer": "system"}.get(str(item.get("role")), item.get("role"))
    if role not in ("system", "user", "assistant"):
        raise UsageError(
            f"input: a message's role is user, assistant, system or developer, not {role!r}."
        )
    content = item.get("content", "")
    if isinstance(content, list) and any(map(_is_image, content)):
        return {"role": role, "content": [_part(part) for part in content]}
    return {"role": role, "content": _text(content)}


def _is_image(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "input_image"


def _part(part: Any) -> Item:
    """Text, or a picture as chat completions have it."""
    if not _is_image(part):
        return {"type": "text", "text": _text([part])}
    if not isinstance(part.get("image_url"), str):
        raise UsageError("input_image needs image_url, a data URL; files are not kept here.")
    return {"type": "image_url", "image_url": {"url": part["image_url"]}}


def check_parts(message: Mapping[str, Any]) -> None:
    """UsageError for a part that would name a file of the machine that serves."""
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        if isinstance(part, Mapping) and part.get("type") in _FILES:
            raise UsageError(
                f"a part of the type {part['type']} is not supported; send pictures as image_url "
                "with a data URL."
            )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if not isinstance(part, Mapping) or part.get("type") not in _TEXTS:
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise UsageError(f"the model reads text only; an input holds {kind!r}, leave it out.")
    return "".join(str(part.get("text", "")) for part in parts)


def chat_tool(tool: Item) -> Item:
    """A tool as chat completions have it."""
    if tool.get("type") != "function":
        raise UsageError(
            f"tools: {tool.get('type')!r} is not supported; this server knows functions only."
        )
    keys = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {key: tool[key] for key in keys if key in tool}}


def call_item(call: ToolCall) -> Item:
    """A whole call of a function."""
    return {
        "id": f"fc_{uuid4().hex}",
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": json.dumps(call.arguments, ensure_ascii=False),
    }


def call_events(item: Item, index: int) -> list[Item]:
    """The events of a stream in which a call arrives as a whole."""
    place = {"item_id": item["id"], "output_index": index}
    opened = {**item, "arguments": "", "status": "in_progress"}
    arguments, kind = item["arguments"], "response.function_call_arguments"
    return [
        {"type": "response.output_item.added", "output_index": index, "item": opened},
        {"type": f"{kind}.delta", **place, "delta": arguments},
        {"type": f"{kind}.done", **place, "arguments": arguments, "name": item["name"]},
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]
