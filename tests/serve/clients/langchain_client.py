"""`langchain-openai`: invoke, stream, batch, tools, structured output, embeddings."""

import sys

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

given = {"base_url": sys.argv[1], "api_key": "none", "model": "default"}
chat = ChatOpenAI(**given, max_tokens=60, temperature=0)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Colour(BaseModel):
    """A colour."""

    colour: str


short = chat.bind(max_tokens=8)
assert short.invoke("Name a colour.").content
assert "".join(each.content for each in short.stream("Name a colour."))
assert len(short.batch(["Name a colour.", "Name a town."])) == 2
called = chat.bind_tools([add], tool_choice="any").invoke("Add 2 and 3.")
assert called.tool_calls[0]["name"] == "add"
result = ToolMessage(content="5", tool_call_id=called.tool_calls[0]["id"])
messages = [HumanMessage("Add 2 and 3."), called, result]
assert isinstance(short.invoke(messages), AIMessage)
for method in ("json_schema", "function_calling"):
    found = chat.with_structured_output(Colour, method=method).invoke("Name a colour.")
    assert isinstance(found, Colour), method
responses = ChatOpenAI(**given, use_responses_api=True, max_tokens=16)
assert responses.invoke("Name a colour.").text
vectors = OpenAIEmbeddings(**given, check_embedding_ctx_length=False)
assert len(vectors.embed_documents(["a fox", "a dog"])) == 2
