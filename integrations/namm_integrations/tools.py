"""Which tool the model must call, in all the spellings that the frameworks' users have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from namm_llm import UsageError

_WORDS = {
    None: "auto",
    False: "none",
    True: "required",
    "auto": "auto",
    "none": "none",
    "any": "required",
    "required": "required",
}


def tool_choice(given: Any) -> str:
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
