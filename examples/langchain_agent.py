"""An agent of LangChain that looks something up with a tool before it answers.

The first step must call a tool, and the grammar sees to it that the call fits, so even a tiny model
cannot get it wrong. What the tool found is then the context of the question. pip install
'namm-llm[langchain,structured,examples]'; python -m examples.langchain_agent
"""

import time
from collections.abc import Callable

from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, ModelResponse, wrap_model_call
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_namm import ChatNamm

CODES = {"silver anchor": "48213", "golden lamp": "90517", "slender island": "33076"}


@tool
def access_codes() -> str:
    """All access codes."""
    return " ".join(f"The access code of the {name} is {code}." for name, code in CODES.items())


@wrap_model_call
def look_up_first(
    request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]
) -> ModelResponse:
    """Nothing is answered from memory: the first step is a call, the next is the answer."""
    found = [message.text for message in request.messages if isinstance(message, ToolMessage)]
    if not found:
        return handler(request.override(tool_choice="any"))
    context = "\n".join(found)
    return handler(
        request.override(
            tool_choice="none", messages=[HumanMessage(f"{context}\n\n{request.messages[0].text}")]
        )
    )


def main() -> list[BaseMessage]:
    agent = create_agent(ChatNamm(max_tokens=60), [access_codes], middleware=[look_up_first])
    began = time.perf_counter()
    messages = agent.invoke(
        {"messages": [HumanMessage("What is the access code of the golden lamp?")]}
    )["messages"]
    for message in messages:
        print(f"{message.type}: {getattr(message, 'tool_calls', None) or message.text}")
    cache = messages[-1].response_metadata["namm"]
    print(
        f"kept {cache['stored_tokens']} of {cache['seen_tokens']} tokens, "
        f"{time.perf_counter() - began:.1f} s"
    )
    return messages


if __name__ == "__main__":
    main()
