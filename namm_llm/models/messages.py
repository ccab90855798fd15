"""Chat messages in the forms that callers have them, brought to the form that chat templates know.
Nothing here changes its argument.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from namm_llm.errors import UsageError

Message = Mapping[str, Any]
GAP = "\n\n"  # between messages that become one


def plain_message(message: Message) -> dict[str, Any]:
    """A message whose content is text and whose tool calls have arguments that are mappings.
    UsageError if it holds more than text.
    """
    calls = [_plain_call(call) for call in message.get("tool_calls") or ()]
    if "role" not in message or ("content" not in message and not calls):
        raise UsageError(
            "a message needs a role and a content; one has "
            f"{', '.join(sorted(message)) or 'nothing'}."
        )
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    plain = {**rest, "content": text_of(message.get("content"))}
    return {**plain, "tool_calls": calls} if calls else plain


def text_of(content: Any) -> str:
    """The text of a message's content: text, or a list of texts and parts `{"type": "text", "text":
    ...}`.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise UsageError(
            f"a message's content is text or a list of parts, not {type(content).__name__}."
        )
    return "".join(_text_of_part(part) for part in content)


def _text_of_part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise UsageError(
        f"the model reads text only, and a message holds a part of the type {kind}; leave it out, "
        "or describe it in words."
    )


def _plain_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    if isinstance(function.get("arguments"), str):
        try:
            function["arguments"] = json.loads(function["arguments"] or "{}")
        except ValueError as error:
            raise UsageError(
                f"the arguments of the tool call {function.get('name')!r} are not JSON: {error}."
            ) from error
    return {**call, "function": function}


def spelled_out(message: dict[str, Any]) -> dict[str, Any]:
    """For a chat template that knows no tools: calls as the JSON that models are asked for, a
    tool's answer as the user's message.
    """
    if message["role"] == "tool":
        title = f"Answer of the tool {message['name']}:\n" if message.get("name") else ""
        return {"role": "user", "content": title + message["content"]}
    calls = [
        json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", ())
    ]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(filter(None, [message["content"], *calls]))}


def with_system(messages: Sequence[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The messages with a text at the end of their first system message, which is made if there is
    none.
    """
    if messages and messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']}{GAP}{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def in_turn(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """User and assistant in turn: messages of one role that follow each other become one, and what
    the system says begins the user's.
    """
    roles = [
        {**message, "role": "user"} if message["role"] == "system" else message
        for message in messages
    ]
    merged = list[dict[str, Any]]()
    for role, group in groupby(roles, key=lambda message: message["role"]):
        alike = list(group)
        if role == "tool" or any(message.get("tool_calls") for message in alike):
            merged += alike
        else:
            merged.append(
                {**alike[0], "content": GAP.join(message["content"] for message in alike)}
            )
    return merged
