"""Tool calls of an answer that still grows: which text is surely none, and which tool is forced."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from namm_llm.errors import UsageError
from namm_llm.models.tools import Tool, ToolCall, ToolChoice, parse_tool_calls

_BEGINNING = re.compile(r"[{\[<`]")
_JSON = re.compile(r'\[?\s*(?:$|\{\s*(?:$|"))')  # an object, or a list of them
_MARKS = (
    "<tool_call>",
    "<tools>",
    "<|python_tag|>",
    "<function=",
    "[TOOL_CALLS]",
    "```json",
    "```\n",
)


_WORDS = {
    None: "auto",
    False: "none",
    True: "required",
    "auto": "auto",
    "none": "none",
    "any": "required",
    "required": "required",
}


def canonical_tool_choice(given: Any) -> ToolChoice:
    """auto, none, required or the name of a tool. Takes None, a truth value, a word, a name, or
    OpenAI's and Anthropic's mappings. UsageError for anything else.
    """
    if isinstance(given, Mapping):
        given = given.get("function", given).get("name") or given.get("type")
    if given is not None and not isinstance(given, bool | str):
        raise UsageError(
            f"tool_choice must be auto, none, required, any or the name of a tool, not {given!r}."
        )
    return _WORDS.get(given, str(given))


class ToolCallStream:
    """Text in, text that is surely no tool call out; the rest is held until it is sure or the
    answer ends. Without tools nothing is held.

    parallel: whether an answer may hold several calls.
    """

    def __init__(self, tools: Sequence[Tool], *, parallel: bool = True) -> None:
        self._tools = tools
        self._parallel = parallel
        names = [tool.get("function", {}).get("name", "") for tool in tools]
        self._calls = (*_MARKS, *(f"[{name}(" for name in names))
        self._held = ""

    def feed(self, text: str) -> str:
        """The text that can be shown now."""
        if not self._tools:
            return text
        self._held += text
        at = 0
        while found := _BEGINNING.search(self._held, at):
            at = found.start()
            if self._may_begin(self._held[at:]):
                break
            at += 1
        border = at if found else len(self._held)
        shown, self._held = self._held[:border], self._held[border:]
        return shown

    def end(self) -> tuple[str, list[ToolCall]]:
        """The rest of the text, and the calls; one call at most unless `parallel`."""
        rest, calls = parse_tool_calls(self._held, self._tools) if self._held else ("", [])
        return rest, calls if self._parallel else calls[:1]

    def _may_begin(self, text: str) -> bool:
        """Whether a call may begin as this does."""
        is_marked = any(text.startswith(mark) or mark.startswith(text) for mark in self._calls)
        return is_marked or _JSON.match(text) is not None
