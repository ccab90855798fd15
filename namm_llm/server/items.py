"""Items of the Responses interface, and the messages that chat templates know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from namm_llm.models.tools import ToolCall

Item = dict[str, Any]


def messages_of(given: str | Sequence[Item]) -> list[Item]:
    """The messages of an input, or of an answer."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages = list[Item]()
    for item in given:
        kind = item.get("type", "message")
        if kind == "message":
            messages.append(_message(item))
        elif kind == "function_call":
            function = {"name": item["name"], "arguments": item.get("arguments", "{}")}
            call = {"id": item["call_id"], "type": "function", "function": function}
            if messages and messages[-1].get("tool_calls"):  # calls of one answer
                messages[-1]["tool_calls"].append(call)
            else:
                messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        elif kind == "function_call_output":
            output, id = _text(item["output"]), item["call_id"]
            messages.append({"role": "tool", "tool_call_id": id, "content": output})
    return messages


def _message(item: Item) -> Item:
    role, content = item["role"], item["content"]
    if isinstance(content, list) and any(part["type"] == "input_image" for part in content):
        content = [_part(part) for part in content]  # pictures as chat completions have them
    else:
        content = _text(content)
    return {"role": "system" if role == "developer" else role, "content": content}


def _part(part: Item) -> Item:
    if part["type"] != "input_image":
        return {"type": "text", "text": part["text"]}
    return {"type": "image_url", "image_url": {"url": part["image_url"]}}


def _text(content: str | Sequence[Item]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def chat_tool(tool: Item) -> Item:
    """A tool as chat completions have it."""
    function = {key: value for key, value in tool.items() if key != "type"}
    return {"type": "function", "function": function}


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
