"""Answers with tools: LlamaIndex's responses for a growing text, and the calls at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from llama_index.core.base.llms.types import ChatResponse, ToolCallBlock
from namm_integrations.call import Whole

if TYPE_CHECKING:
    from namm_llm import Generation, Piece, ToolCall, ToolCallStream


def growing_with_tools(
    answer: Iterator[Piece | Whole],
    growing: ToolCallStream,
    respond: Callable[[str, str, Generation | None], ChatResponse],
) -> Iterator[ChatResponse]:
    """A response for each piece of text, and at last one with the tool calls. Text that could be a
    call is held back until it is sure.
    """
    shown = ""
    for part in answer:
        if isinstance(part, Whole):
            rest, calls = growing.end()
            response = respond(shown + rest, rest, part.generation)
            response.message.blocks += [_block(call) for call in calls]
            yield response
        elif delta := growing.feed(part.text):
            shown += delta
            yield respond(shown, delta, None)


def _block(call: ToolCall) -> ToolCallBlock:
    return ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=call.arguments)
