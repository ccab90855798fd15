"""Answers as objects: whole ones or an error, by every way that LangChain has."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import OutputParserException
from langchain_core.tools import tool
from langchain_namm import ChatNamm, NammLLM
from pydantic import BaseModel, Field

from namm_llm import UsageError

METHODS = ["json_schema", "json_mode", "function_calling"]


class Invoice(BaseModel):
    """An invoice."""

    sender: str = Field(min_length=40)
    paid: bool = False


class Flag(BaseModel):
    """A yes or a no."""

    yes: bool


@tool
def ring() -> str:
    """Rings the bell."""
    return "rang"


SCHEMA = {**Invoice.model_json_schema(), "title": "invoice", "description": "x"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [Invoice, SCHEMA], ids=["class", "mapping"])
async def test_a_cut_answer_is_an_error(chat: ChatNamm, schema: Any, method: str) -> None:
    asked = chat.with_structured_output(schema, method=method)
    with pytest.raises(OutputParserException, match="cut after 6 tokens, before it was whole"):
        asked.invoke("x", max_tokens=6)
    with pytest.raises(OutputParserException, match="give it a larger max_tokens"):
        await asked.ainvoke("x", max_tokens=6)
    with pytest.raises(OutputParserException, match="cut after 6 tokens"):
        list(asked.stream("x", max_tokens=6))
    raw = chat.with_structured_output(schema, method=method, include_raw=True)
    found = raw.invoke("x", max_tokens=6)
    assert (found["parsed"], type(found["parsing_error"])) == (None, OutputParserException)
    assert found["raw"].response_metadata["finish_reason"] == "length"


def test_a_completion_model_gives_objects_too(llm: NammLLM) -> None:
    assert isinstance(llm.with_structured_output(Flag).invoke("x", max_tokens=40), Flag)
    with pytest.raises(OutputParserException, match="no whole JSON"):
        llm.with_structured_output(Invoice).invoke("x", max_tokens=6)


def test_an_agent_answers_with_an_object(chat: ChatNamm) -> None:
    agent = create_agent(chat.model_copy(update={"max_tokens": 60}), [], response_format=Flag)
    found = agent.invoke({"messages": [("user", "x")]})
    assert isinstance(found["structured_response"], Flag)


def test_an_agent_with_tools_calls_them_or_answers_with_an_object(chat: ChatNamm) -> None:
    bound = chat.bind_tools([ring], response_format=_format(Flag))
    kinds = set()
    for seed in range(12):
        found = bound.invoke("x", max_tokens=60, temperature=2.0, seed=seed)
        kinds.add(found.tool_calls[0]["name"] if found.tool_calls else found.text[:7])
    assert kinds == {"ring", '{"yes":'}


def _format(kind: type[BaseModel]) -> dict[str, Any]:
    named = {"name": kind.__name__, "schema": kind.model_json_schema()}
    return {"type": "json_schema", "json_schema": named}


@pytest.mark.parametrize(
    ("response_format", "begins"),
    [(_format(Flag), '{"yes":'), (Flag, '{"yes":'), ({"type": "json_object"}, "{")],
)
def test_response_format_is_followed(chat: ChatNamm, response_format: Any, begins: str) -> None:
    found = chat.invoke("x", response_format=response_format, max_tokens=40)
    assert found.text.startswith(begins)
    assert found.response_metadata["finish_reason"] == "stop"


def test_other_formats_are_free_text_or_an_error(chat: ChatNamm) -> None:
    assert chat.invoke("x", response_format={"type": "text"}).text == chat.invoke("x").text
    with pytest.raises(UsageError, match="of the type text, json_object or json_schema, not 'xml'"):
        chat.invoke("x", response_format={"type": "xml"})


def test_a_stop_text_ends_no_object_and_no_forced_call(chat: ChatNamm) -> None:
    stopped = chat.model_copy(update={"stop": ['":'], "max_tokens": 60})
    assert isinstance(stopped.with_structured_output(Flag).invoke("x"), Flag)
    assert stopped.bind_tools([ring], tool_choice="any").invoke("x").tool_calls


def test_json_that_was_ended_early_says_so(chat: ChatNamm) -> None:
    found = chat.invoke("x", json_schema={"type": "string"}, max_tokens=20)
    assert found.response_metadata["finish_reason"] == "stop"
    assert found.response_metadata["namm"]["closed_early"] is True
