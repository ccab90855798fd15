"""Tools as LlamaIndex has them: what is offered to the model, and the calls in what it writes.

The schemas, the choice and the search for calls are `namm_llm`'s; this is the form that LlamaIndex
gives them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatResponse, ToolCallBlock
from llama_index.llms.namm.settings import Call

from namm_llm import UsageError

if TYPE_CHECKING:
    from namm_llm import Generation, Stream, ToolCall

_CALL_BEGINS = re.compile(r"[\[{<`]")  # of JSON, or of the marks that models write around it


def choice_of(given: Any) -> str:
    """What LlamaIndex's users write for a tool choice, as the runner takes it: auto, none, required
    or a name.
    """
    if isinstance(given, dict):
        given = given.get("function", given).get("name")
    if given is None or isinstance(given, bool):
        return {None: "auto", True: "required", False: "none"}[given]
    if not isinstance(given, str):
        raise UsageError(
            f"tool_choice must be auto, none, required, any or the name of a tool, not {given!r}."
        )
    return "required" if given == "any" else given


def growing_with_tools(
    stream: Stream, call: Call, respond: Callable[[str, str, Generation | None], ChatResponse]
) -> Generator[ChatResponse, None, None]:
    """A response for each piece of text, and at last one with the tool calls. Text that could be a
    call is held back until the end.
    """
    from namm_llm import parse_tool_calls  # imports torch

    shown, held = "", ""
    with stream:
        for piece in stream:
            held += piece.text
            begins = _CALL_BEGINS.search(held)
            delta, held = (
                (held, "") if begins is None else (held[: begins.start()], held[begins.start() :])
            )
            shown += delta
            if delta:
                yield respond(shown, delta, None)
    rest, calls = parse_tool_calls(held, call.tools or [])
    response = respond(shown + rest, rest, stream.result)
    response.message.blocks += [_block(one) for one in (calls if call.parallel else calls[:1])]
    yield response


def _block(call: ToolCall) -> ToolCallBlock:
    return ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=call.arguments)
