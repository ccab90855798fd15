"""What LangChain's users give a model object, right and wrong."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_namm import ChatNamm, NammLLM
from namm_integrations.call import AnswerTimeout

from namm_llm import Document, UsageError, make_cache_config

CLASSES = [ChatNamm, NammLLM]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1}, "temperature must be a number from 0 on, not -1"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of tokens from 1 on, not 0"),
        ({"budget": "1,5GB"}, "budget"),
        ({"policy": "nope"}, "there is no policy 'nope'"),
        ({"quantization": "int3"}, "quantization must be one of"),
        ({"json_schema": {}, "regex": "a"}, "json_schema and regex cannot both be followed"),
        ({"max_tokens": 1, "max_new_tokens": 2}, "was given max_tokens twice"),
        ({"bugdet": 0.5}, "no setting 'bugdet'; did you mean budget?"),
    ],
)
def test_wrong_values_are_refused_when_it_is_made(
    cls: Any, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        cls(**wrong)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ("max_completion_tokens", "max_tokens"),
        ("num_predict", "max_tokens"),
        ("stop_sequences", "stop"),
        ("repeat_penalty", "repetition_penalty"),
        ("num_ctx", "context_window"),
        ("n_ctx", "context_window"),
    ],
)
def test_names_that_others_use_are_known(other: str, name: str) -> None:
    value: Any = ["a"] if name == "stop" else 3
    assert getattr(ChatNamm(**{other: value}), name) == value


def test_objects_of_torch_and_policies_are_taken(folder: Path) -> None:
    config = make_cache_config("h2o", budget=0.5)
    chat = ChatNamm(
        model=folder, dtype=torch.float32, device=torch.device("cpu"), policy=config, max_tokens=2
    )
    assert (chat.dtype, chat.device, chat.model) == ("float32", "cpu", str(folder))
    assert chat.invoke("x").response_metadata["namm"]["policy"].startswith("h2o, budget 0.5")


async def test_an_answer_that_takes_too_long_is_given_up(chat: ChatNamm, llm: NammLLM) -> None:
    for model in (chat, llm):
        with pytest.raises(AnswerTimeout, match=r"given up after 0.05 s; give it a larger timeout"):
            model.invoke("x", timeout=0.05, max_tokens=4000)
        with pytest.raises(TimeoutError):
            await model.ainvoke("x", timeout=0.05, max_tokens=4000)
        with pytest.raises(TimeoutError):
            list(model.stream("x", timeout=0.05, max_tokens=4000))
        assert model.invoke("x", timeout=60)


def test_a_living_document_cannot_be_pickled(two_documents: list[Document]) -> None:
    with pytest.raises(UsageError, match="save it to a file and give the model the file"):
        pickle.dumps(ChatNamm(memory=two_documents[0]))


def test_a_memory_takes_its_tokens_from_the_window(
    two_documents: list[Document], two_files: list[Path], long_folder: Path
) -> None:
    seen = two_documents[0].info()["seen_tokens"]
    whole = ChatNamm(model=str(long_folder))
    for memory in (two_documents[0], two_files[0]):
        chat = ChatNamm(model=str(long_folder), memory=memory, max_tokens=2)
        assert chat.profile["max_input_tokens"] == whole.profile["max_input_tokens"] - seen
        asked = [HumanMessage("What?")]
        used = chat.invoke(asked).usage_metadata["input_tokens"]
        assert chat.get_num_tokens_from_messages(asked) == used
    assert ChatNamm(model=str(long_folder), num_ctx=512).profile["max_input_tokens"] == 512


@pytest.mark.parametrize("cls", CLASSES)
def test_a_conversation_behind_a_memory_goes_through_the_template_once(
    two_documents: list[Document], cls: type[BaseChatModel]
) -> None:
    messages = [SystemMessage("Be brief."), HumanMessage("What?")]
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}]
    expected = two_documents[0].ask(plain, max_tokens=6)
    asked = cls(memory=two_documents[0], max_tokens=6)
    result = asked.generate_prompt([asked._convert_input(messages)]).generations[0][0]
    assert result.text == expected.text
    streamed = "".join(getattr(part, "text", part) for part in asked.stream(messages))
    assert streamed == expected.text


def test_blocks_of_plain_text_are_text(chat: ChatNamm) -> None:
    block = {"type": "text-plain", "text": "What?", "mime_type": "text/plain"}
    assert chat.invoke([HumanMessage([block])]).text == chat.invoke("What?").text
    with pytest.raises(UsageError, match="a message holds a part of the type odd"):
        chat.invoke([HumanMessage([{"type": "odd"}])])


@pytest.mark.parametrize(
    "tool", [{"type": "function", "name": "flat", "parameters": {}}, {"type": "web_search"}]
)
def test_what_is_no_tool_is_one_clear_line(chat: ChatNamm, tool: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="a tool is a mapping"):
        chat.bind_tools([tool]).invoke("x")


def test_calls_that_may_not_be_parallel_are_one(chat: ChatNamm) -> None:
    def ring() -> str:
        """Rings."""
        return "rang"

    two = r'\{"name":"ring","arguments":\{\}\}\n\{"name":"ring","arguments":\{\}\}'
    for parallel, count in ((None, 2), (True, 2), (False, 1)):
        bound = chat.bind_tools([ring], parallel_tool_calls=parallel)
        assert len(bound.invoke("x", regex=two, max_tokens=80).tool_calls) == count


@pytest.mark.parametrize("choice", [False, "none", {"type": "none"}])
def test_no_choice_means_no_tools(chat: ChatNamm, choice: Any) -> None:
    def ring() -> str:
        """Rings."""
        return "rang"

    told = chat.bind_tools([ring], tool_choice=choice).invoke("x")
    assert told.text == chat.invoke("x").text


def test_a_completion_model_refuses_tools(llm: NammLLM) -> None:
    with pytest.raises(UsageError, match="NammLLM takes no tools; bind them to a ChatNamm"):
        llm.bind(tools=[{"name": "x"}]).invoke("x")
