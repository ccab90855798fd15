"""Tools that a model may call: what it is told of them, the schema that a forced call follows, and
the calls in what it wrote.

Tools and choices are in OpenAI's format. Text in, values out; knows nothing about models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from namm_llm.errors import UsageError

Tool = Mapping[str, Any]
ToolChoice = str
_OPENING = re.compile(r"[\[{]")
_MARKS = re.compile(
    r"</?tool_calls?>|<\|python_tag\|>|```(?:json)?"
)  # what models write around their calls


@dataclass(frozen=True)
class ToolCall:
    """A call that a model asks for."""

    name: str
    arguments: dict[str, Any]
    id: str = field(default_factory=lambda: f"call_{uuid4().hex[:24]}", compare=False)

    def to_openai(self) -> dict[str, Any]:
        """As an entry of a message's `tool_calls`."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


def chosen_tools(tools: Sequence[Tool], choice: ToolChoice) -> list[Tool]:
    """The tools that the model is told of. UsageError for what is no tool, or a choice that none of
    them is.
    """
    tools = [] if choice == "none" else list(tools)
    names = [_name(tool) for tool in tools]
    if choice in ("auto", "none"):
        return tools
    if not tools:
        raise UsageError(f"tool_choice is {choice!r}, but there are no tools.")
    if choice != "required" and choice not in names:
        raise UsageError(
            f"tool_choice must be auto, none, required or one of {', '.join(names)}, not {choice!r}."
        )
    return tools


def forced_call(tools: Sequence[Tool], choice: ToolChoice) -> dict[str, Any]:
    """The sampling parameters with which the answer is a call; nothing if the model is free to
    choose.
    """
    if choice in ("auto", "none"):
        return {}
    schemas = [
        _call_schema(tool["function"]) for tool in tools if choice in ("required", _name(tool))
    ]
    return {"json_schema": schemas[0] if len(schemas) == 1 else _any_of(schemas)}


def describe_tools(tools: Sequence[Tool]) -> str:
    """What a model is told whose chat template does not know of tools."""
    lines = [json.dumps(dict(tool["function"]), ensure_ascii=False) for tool in tools]
    return (
        "You can call these tools:\n" + "\n".join(lines) + "\n"
        'To call one, answer with nothing but JSON: {"name": "the tool", "arguments": {"the parameter": "its value"}}'
    )


def parse_tool_calls(text: str, tools: Sequence[Tool]) -> tuple[str, list[ToolCall]]:
    """The text without its calls, and the calls of these tools in it.

    Understands a JSON object with `name` and `arguments` or `parameters`, alone, several of them,
    or in a list; in `<tool_call>` marks, after Llama's `<|python_tag|>`, or in a code block. What
    is no call of a known tool stays text.
    """
    names = {_name(tool) for tool in tools}
    calls, spans = list[ToolCall](), list[tuple[int, int]]()
    for start, end, value in _json_values(text):
        found = [
            call
            for item in (value if isinstance(value, list) else [value])
            if (call := _as_call(item, names))
        ]
        if found and len(found) == (len(value) if isinstance(value, list) else 1):
            calls += found
            spans.append((start, end))
    if not calls:
        return text, []
    for start, end in reversed(spans):
        text = text[:start] + text[end:]
    return _MARKS.sub("", text).strip(" \n\t;,"), calls


def _name(tool: Tool) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UsageError(
            'a tool is a mapping {"type": "function", "function": {"name": ..., "parameters": ...}}.'
        )
    return str(function["name"])


def _call_schema(function: Mapping[str, Any]) -> dict[str, Any]:
    parameters = dict(function.get("parameters") or {"type": "object", "properties": {}})
    schema = {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
    return schema | _lifted(parameters)


def _lifted(parameters: dict[str, Any]) -> dict[str, Any]:
    """Definitions of a schema, whose references start at the outermost one."""
    return {key: parameters.pop(key) for key in ("$defs", "definitions") if key in parameters}


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    outer: dict[str, Any] = {}
    for schema in schemas:
        for key, definitions in _lifted(schema).items():
            outer.setdefault(key, {}).update(definitions)
    return {"anyOf": schemas} | outer


def _json_values(text: str) -> Iterator[tuple[int, int, Any]]:
    """Where JSON objects and lists stand in a text, and what they are; inner ones not on their own."""
    decoder, at = json.JSONDecoder(), 0
    while found := _OPENING.search(text, at):
        try:
            value, at = decoder.raw_decode(text, found.start())
        except ValueError:
            at = found.end()
        else:
            yield found.start(), at, value


def _as_call(value: Any, names: set[str]) -> ToolCall | None:
    if not isinstance(value, dict):
        return None
    value = value.get("function") if isinstance(value.get("function"), dict) else value
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    if value.get("name") not in names or not isinstance(arguments, dict):
        return None
    return ToolCall(value["name"], arguments)
