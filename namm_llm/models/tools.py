"""Tools that a model may call: what it is told of them, the schema that a forced call follows, and
the calls in what it wrote.

Tools and choices are in OpenAI's format. Text in, values out; knows nothing about models.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from namm_llm.errors import UsageError
from namm_llm.models.schemas import anchored

Tool = Mapping[str, Any]
ToolChoice = str
_OPENING = re.compile(r"[\[{]")
_TAGGED = re.compile(r"<function=([^>\s]+)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
# what models write around their calls
_MARKS = re.compile(r"</?tool_calls?>|</?tools>|<\|python_tag\|>|\[TOOL_CALLS\]|```(?:json)?")


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
            f"tool_choice must be auto, none, required or one of {', '.join(names)}, "
            f"not {choice!r}."
        )
    return tools


def forced_call(
    tools: Sequence[Tool], choice: ToolChoice, json_schema: str | None = None
) -> dict[str, Any]:
    """The sampling parameters with which the answer is a call, whole however it is sampled; nothing
    if the model is free to choose.

    json_schema: of answers that are no call. A model that is free to choose then writes a call or
    such an answer.
    """
    if choice == "none" or (choice == "auto" and not (tools and json_schema)):
        return {}
    chosen = [tool["function"] for tool in tools if choice in ("auto", "required", _name(tool))]
    calls = [_call_schema(function, f"tool_{at}") for at, function in enumerate(chosen)]
    # one definition for each tool, because tools may name definitions of their own alike
    parameters = {
        f"tool_{at}": {
            "type": "object",
            **anchored(function.get("parameters") or _NO_PARAMETERS, f"#/$defs/tool_{at}"),
        }
        for at, function in enumerate(chosen)
    }
    if choice == "auto":
        calls.append({"$ref": "#/$defs/answer"})
        parameters["answer"] = anchored(json.loads(str(json_schema)), "#/$defs/answer")
    schema = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {"json_schema": {**schema, "$defs": parameters}, "stop": ()}


def describe_tools(tools: Sequence[Tool]) -> str:
    """What a model is told whose chat template does not know of tools."""
    lines = [json.dumps(dict(tool["function"]), ensure_ascii=False) for tool in tools]
    return (
        "You can call these tools:\n" + "\n".join(lines) + "\n"
        "To call one, answer with nothing but JSON: "
        '{"name": "the tool", "arguments": {"the parameter": "its value"}}'
    )


def parse_tool_calls(text: str, tools: Sequence[Tool]) -> tuple[str, list[ToolCall]]:
    """The text without its calls, and the calls of these tools in it.

    Understands a JSON object with `name` and `arguments` or `parameters`, alone, several of them,
    or in a list; in `<tool_call>` marks, after Llama's `<|python_tag|>`, or in a code block; also
    `<function=name>...</function>` with JSON or `<parameter=...>` inside, and a list of Python
    calls that is all of the text. What is no call of a known tool stays text, and so does JSON in
    the middle of a line.
    """
    names = {_name(tool) for tool in tools}
    if calls := _python_calls(text, names):
        return "", calls
    found = _tagged_calls(text, names) or _json_calls(text, names)
    if not found:
        return text, []
    for start, end, _ in reversed(found):
        text = text[:start] + text[end:]
    rest = _MARKS.sub("", text).strip(" \n\t;,")
    return rest, [call for _, _, calls in found for call in calls]


def _name(tool: Tool) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UsageError(
            'a tool is a mapping {"type": "function", '
            '"function": {"name": ..., "parameters": ...}}.'
        )
    return str(function["name"])


def _call_schema(function: Mapping[str, Any], definition: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": function["name"]},
            "arguments": {"$ref": f"#/$defs/{definition}"},
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


_Found = list[tuple[int, int, list[ToolCall]]]  # where calls stand in a text


def _json_calls(text: str, names: set[str]) -> _Found:
    found: _Found = []
    for start, end, value in _json_values(text):
        items = value if isinstance(value, list) else [value]
        calls = [call for item in items if (call := _as_call(item, names))]
        if calls and len(calls) == len(items):
            found.append((start, end, calls))
    stops = [*(start for start, _, _ in found[1:]), len(text)]
    return [
        each for each, stop in zip(found, stops, strict=False) if not _goes_on(text[each[1] : stop])
    ]


def _goes_on(text: str) -> bool:
    """Whether the line goes on with words, so that what stands before is only spoken of."""
    return bool(_MARKS.sub("", text).partition("\n")[0].strip(" \t;,.`"))


def _tagged_calls(text: str, names: set[str]) -> _Found:
    found: _Found = []
    for match in _TAGGED.finditer(text):
        name, body = match[1], match[2].strip()
        parameters = {key: _plain(value) for key, value in _PARAMETER.findall(body)}
        call = _as_call({"name": name, "arguments": parameters or body}, names)
        if call is not None:
            found.append((match.start(), match.end(), [call]))
    return found


def _plain(text: str) -> Any:
    """What a text between tags says: JSON if it is some, else itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _python_calls(text: str, names: set[str]) -> list[ToolCall]:
    """The calls of a text such as `[add(a=1, b=2), ping()]`; none if it is anything else."""
    text = _MARKS.sub("", text).strip()
    if text.lstrip("[ ").partition("(")[0] not in names:
        return []
    try:
        tree = ast.parse(text, mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.List) else [tree]
        return [_python_call(node, names) for node in nodes]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _python_call(node: ast.expr, names: set[str]) -> ToolCall:
    if not isinstance(node, ast.Call) or node.args or ast.unparse(node.func) not in names:
        raise ValueError("no call of a tool")
    arguments = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
    return ToolCall(ast.unparse(node.func), arguments)


def _json_values(text: str) -> Iterator[tuple[int, int, Any]]:
    """Where the outermost JSON objects and lists stand in a text, and what they are."""
    decoder, at = json.JSONDecoder(strict=False), 0  # models write newlines into texts
    while found := _OPENING.search(text, at):
        try:
            value, at = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            at = found.end()
        else:
            yield found.start(), at, value


def _as_call(value: Any, names: set[str]) -> ToolCall | None:
    if not isinstance(value, dict):
        return None
    value = value.get("function") if isinstance(value.get("function"), dict) else value
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str) and arguments.strip():
        try:
            arguments = json.loads(arguments, strict=False)
        except ValueError:
            return None
    arguments = arguments or {}  # for tools without parameters, models write null or nothing
    name = value.get("name")
    if not isinstance(name, str) or name not in names or not isinstance(arguments, dict):
        return None
    return ToolCall(name, arguments)
