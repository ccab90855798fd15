"""Structured prediction by constrained decoding: valid objects from a random model."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from llama_index.core.bridge.pydantic import BaseModel, Field, ValidationError, field_validator
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import PydanticProgramMode
from llama_index.llms.namm import NammLLM

from namm_llm import UsageError

pytest.importorskip("llguidance")
PROMPT = PromptTemplate("Which of the records is about {what}?")


class Record(BaseModel):
    """A record of a handbook."""

    kind: Literal["access code", "room number"]
    confirmed: bool
    value: int = Field(ge=0, le=99999)


class Records(BaseModel):
    """Records, one inside the other."""

    first: Record
    others: list[Record] = Field(max_length=1)


def test_06_an_object_of_the_class(llm):
    record = llm.structured_predict(Record, PROMPT, llm_kwargs={"max_tokens": 80}, what="vaults")
    assert isinstance(record, Record)
    assert record.value <= 99999
    assert (
        asyncio.run(
            llm.astructured_predict(Record, PROMPT, llm_kwargs={"max_tokens": 80}, what="vaults")
        )
        == record
    )
    assert isinstance(
        llm.structured_predict(Records, PROMPT, llm_kwargs={"max_tokens": 300}, what="vaults"),
        Records,
    )


def test_06_the_prompt_of_a_structured_prediction_is_the_same_as_of_a_chat(llm):
    instructed = NammLLM(llm.model, max_tokens=80, system_prompt="Be short.")
    record = instructed.structured_predict(Record, PROMPT, what="vaults")
    messages = [
        ChatMessage(role="system", content="Be short."),
        ChatMessage(content=PROMPT.format(what="vaults")),
    ]
    assert (
        Record.model_validate_json(
            llm.chat(
                messages, max_tokens=80, json_schema=Record.model_json_schema()
            ).message.content
        )
        == record
    )


def test_06_it_grows_while_it_is_written(llm):
    options = {"max_tokens": 80}
    whole = llm.structured_predict(Record, PROMPT, llm_kwargs=options, what="vaults")
    partial = list(llm.stream_structured_predict(Record, PROMPT, llm_kwargs=options, what="vaults"))
    assert partial[-1] == whole
    assert len(partial) > 4
    assert getattr(partial[0], "value", None) is None

    async def collect() -> list:
        return [
            one
            async for one in await llm.astream_structured_predict(
                Record, PROMPT, llm_kwargs=options, what="vaults"
            )
        ]

    assert [one.model_dump() for one in asyncio.run(collect())] == [
        one.model_dump() for one in partial
    ]


def test_06_as_structured_llm(llm):
    structured = NammLLM(llm.model, max_tokens=80).as_structured_llm(Record)
    answer = structured.complete("Which record?")
    assert isinstance(answer.raw, Record)
    assert asyncio.run(structured.achat([ChatMessage(content="Which record?")])).raw == answer.raw


def test_06_an_answer_that_is_cut_says_what_to_do(llm):
    with pytest.raises(
        UsageError, match="cut after 2 tokens, within the Record; give it a larger max_tokens"
    ):
        llm.structured_predict(Record, PROMPT, llm_kwargs={"max_tokens": 2}, what="vaults")


def test_06_a_check_that_no_schema_can_say_is_pydantics_own_error(llm):
    class Never(Record):
        @field_validator("value")
        @classmethod
        def never(cls, value: int) -> int:
            raise ValueError("never right")

    with pytest.raises(ValidationError, match="never right"):
        llm.structured_predict(Never, PROMPT, llm_kwargs={"max_tokens": 80}, what="vaults")


def test_06_another_program_mode_goes_llama_indexs_own_way(llm):
    called = NammLLM(llm.model, max_tokens=150, pydantic_program_mode=PydanticProgramMode.FUNCTION)
    assert isinstance(called.structured_predict(Record, PROMPT, what="vaults"), Record)
    prose = NammLLM(llm.model, max_tokens=20, pydantic_program_mode=PydanticProgramMode.LLM)
    with pytest.raises(ValueError, match="Could not extract json"):
        prose.structured_predict(Record, PROMPT, what="vaults")


def test_an_expression_makes_the_bundled_model_answer_in_form(bundled):
    told = (
        "The access code of the amber vault is 48213. What is the access code of the amber vault?"
    )
    assert bundled.complete(
        told, regex=r"The access code of the amber vault is [0-9]{5}"
    ).text.endswith(" 48213")
