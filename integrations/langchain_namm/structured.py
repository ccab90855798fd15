"""Answers as objects: the model is held to a JSON schema while it writes, then the text is parsed."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass

from namm_llm import UsageError


def structured(
    chat: BaseChatModel, schema: Any, *, include_raw: bool, method: str, **kwargs: Any
) -> Runnable[LanguageModelInput, Any]:
    """For `with_structured_output`: a pydantic class gives its objects, anything else gives
    mappings.
    """
    if method not in ("json_schema", "json_mode"):
        raise UsageError(
            f"method must be json_schema, function_calling or json_mode, not {method!r}."
        )
    model = isinstance(schema, type) and is_basemodel_subclass(schema)
    parser: Any = PydanticOutputParser(pydantic_object=schema) if model else JsonOutputParser()
    form = {"kwargs": {"method": method}, "schema": schema}
    bound = chat.bind(
        json_schema=convert_to_json_schema(schema), ls_structured_output_format=form, **kwargs
    )
    if not include_raw:
        return bound | parser
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")
