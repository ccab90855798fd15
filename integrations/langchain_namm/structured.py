"""Answers as objects: the model is held to a JSON schema while it writes, then the text is parsed.

An answer that was cut is an error and never an object.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from operator import itemgetter
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import (
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
)
from langchain_core.runnables import (
    Runnable,
    RunnableGenerator,
    RunnableLambda,
    RunnableMap,
    RunnablePassthrough,
)
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from namm_llm import UsageError

METHODS = ("json_schema", "json_mode", "function_calling")


def structured(
    chat: Any, schema: Any, *, include_raw: bool, method: str, **kwargs: Any
) -> Runnable[LanguageModelInput, Any]:
    """For `with_structured_output`: a pydantic class gives its objects, anything else gives
    mappings. OutputParserException for an answer that was cut.
    """
    if method not in METHODS:
        raise UsageError(f"method must be one of {', '.join(METHODS)}, not {method!r}.")
    form = {"kwargs": {"method": method}, "schema": schema}
    if method == "function_calling":
        bound, parser = _by_tool(chat, schema, ls_structured_output_format=form, **kwargs)
    else:
        constraint = convert_to_json_schema(schema)
        bound = chat.bind(json_schema=constraint, ls_structured_output_format=form, **kwargs)
        parser = _parser(schema)
    parser = RunnableGenerator(_whole, _awhole) | parser
    if not include_raw:
        return bound | parser
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def structured_text(llm: Any, schema: Any, **kwargs: Any) -> Runnable[LanguageModelInput, Any]:
    """As `structured`, for a model whose answers are texts."""
    return (
        llm.bind(json_schema=convert_to_json_schema(schema), **kwargs)
        | RunnableLambda(_checked)
        | _parser(schema)
    )


def _checked(text: str) -> str:
    try:
        json.loads(text)
    except ValueError as error:
        raise OutputParserException(
            "the answer is no whole JSON; give it a larger max_tokens.", llm_output=text
        ) from error
    return text


def _parser(schema: Any) -> Any:
    is_model = isinstance(schema, type) and is_basemodel_subclass(schema)
    return PydanticOutputParser(pydantic_object=schema) if is_model else JsonOutputParser()


def _by_tool(chat: Any, schema: Any, **kwargs: Any) -> tuple[Any, Any]:
    name = convert_to_openai_tool(schema)["function"]["name"]
    bound = chat.bind_tools([schema], tool_choice=name, **kwargs)
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return bound, PydanticToolsParser(tools=[schema], first_tool_only=True)
    return bound, JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)


def _whole(messages: Iterator[AIMessage]) -> Iterator[AIMessage]:
    """The message, or its chunks; at the end an error if it was cut."""
    for message in messages:
        yield message
        _check(message)


async def _awhole(messages: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    async for message in messages:
        yield message
        _check(message)


def _check(message: AIMessage) -> None:
    """The chunk that brings the numbers says how the answer ended."""
    if message.response_metadata.get("finish_reason") == "length":
        written = (message.usage_metadata or {}).get("output_tokens")
        raise OutputParserException(
            f"the answer was cut after {written} tokens, before it was whole; give it a larger "
            "max_tokens.",
            llm_output=str(message.content),
        )
