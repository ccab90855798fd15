"""What LlamaIndex's users give an LLM, right and wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.namm import NammLLM
from namm_integrations.call import AnswerTimeout

from namm_llm import Document, UsageError, make_cache_config
from tests.integrations.llama_index.calls import CALLS, ask


def ring() -> str:
    """Rings the bell."""
    return "rang"


RING = FunctionTool.from_defaults(ring)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1}, "temperature must be a number from 0 on, not -1"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of tokens from 1 on"),
        ({"policy": "nope"}, "there is no policy 'nope'"),
    ],
)
def test_wrong_values_are_refused_when_it_is_made(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NammLLM(**wrong)


def test_the_model_of_the_environment_is_the_default(
    monkeypatch: pytest.MonkeyPatch, tiny_folder
) -> None:
    monkeypatch.setenv("NAMM_MODEL", str(tiny_folder))
    assert NammLLM().model == str(tiny_folder)


def test_objects_of_torch_and_policies_are_taken(tiny_folder) -> None:
    config = make_cache_config("h2o", budget=0.5)
    llm = NammLLM(
        tiny_folder, dtype=torch.float32, device=torch.device("cpu"), policy=config, max_tokens=2
    )
    assert (llm.dtype, llm.device) == ("float32", "cpu")
    assert llm.complete("x").raw["namm"]["policy"].startswith("h2o, budget 0.5")


@pytest.mark.parametrize("name", CALLS)
def test_an_answer_that_takes_too_long_is_given_up(name, llm) -> None:
    with pytest.raises(AnswerTimeout, match="the answer was given up after"):
        ask(name, llm, "x", timeout=0.05, max_tokens=4000)


@pytest.mark.parametrize("choice", ["any", True, {"type": "any"}, {"type": "required"}])
def test_a_forced_choice_calls(choice, llm) -> None:
    response = llm.chat_with_tools([RING], "x", tool_choice=choice, max_tokens=60)
    assert [block.tool_name for block in response.message.blocks[1:]] == ["ring"]


def test_cache_settings_beside_a_living_memory_are_refused(two_documents: list[Document]) -> None:
    with pytest.raises(UsageError, match="budget is a setting of the memory's own runner"):
        NammLLM(memory=two_documents[0], budget=0.5).complete("x")


def test_a_rendered_prompt_behind_a_memory_goes_through_the_template_once(
    two_documents: list[Document], long_folder
) -> None:
    llm = NammLLM(long_folder, memory=two_documents[0], max_tokens=6)
    expected = llm.chat([ChatMessage(content="What?")])
    found = llm.complete(llm.completion_to_prompt("What?"), formatted=True)
    assert found.text == expected.message.content
    assert found.raw["usage"] == expected.raw["usage"]
    with pytest.raises(UsageError, match="cannot follow a memory; leave out formatted=True"):
        llm.complete("What?", formatted=True)


@pytest.mark.parametrize("arguments", ["", "{}", {}])
def test_calls_of_a_history_may_have_their_arguments_as_text(arguments, llm) -> None:
    call = ToolCallBlock(tool_call_id="1", tool_name="ring", tool_kwargs=arguments)
    history = [ChatMessage(content="x"), ChatMessage(role="assistant", blocks=[call])]
    assert llm.chat([*history, ChatMessage(content="y")]).message.content


def test_broken_arguments_of_a_history_are_one_clear_line(llm) -> None:
    call = ToolCallBlock(tool_call_id="1", tool_name="ring", tool_kwargs="{broken")
    history = [ChatMessage(content="x"), ChatMessage(role="assistant", blocks=[call])]
    with pytest.raises(UsageError, match="the arguments of the tool call 'ring' are not JSON"):
        llm.chat(history)


def test_citations_stream_while_tools_are_offered(llm) -> None:
    options = {"grammar": 'start: "As source [1] says, yes."', "max_tokens": 60}
    deltas = [each.delta for each in llm.stream_chat_with_tools([RING], "x", **options)]
    assert "".join(deltas) == "As source [1] says, yes."
    assert len([delta for delta in deltas if delta]) > 3
