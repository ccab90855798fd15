"""`llama-index-llms-openai-like`: complete, chat, streams and tools."""

import sys

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

llm = OpenAILike(
    api_base=sys.argv[1],
    api_key="none",
    model="default",
    is_chat_model=True,
    is_function_calling_model=True,
    max_tokens=60,
)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


messages = [ChatMessage(role="user", content="Name a colour.")]
assert llm.chat(messages, max_tokens=8).message.content
assert "".join(each.delta or "" for each in llm.stream_chat(messages, max_tokens=8))
assert llm.complete("The fox", max_tokens=8).text
tools = [FunctionTool.from_defaults(add)]
called = llm.chat_with_tools(tools, user_msg="Add 2 and 3.", tool_required=True)
assert llm.get_tool_calls_from_response(called)[0].tool_name == "add"
