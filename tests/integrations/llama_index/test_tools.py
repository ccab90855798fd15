"""Function calling: forced, free and forbidden calls, the whole loop, agents; on a random model,
whose forced calls are all valid.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.namm import NammLLM

from namm_llm import UsageError
from tests.integrations.llama_index.conftest import forward_passes, prompt_of

pytest.importorskip("llguidance")
# LlamaIndex's workflows look at every attribute of an agent
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")


def sign(approved: bool) -> str:
    """Signs the travel request, or not."""
    return f"signed: {approved}"


def ring() -> str:
    """Rings the bell."""
    return "rang"


SIGN, RING = FunctionTool.from_defaults(sign), FunctionTool.from_defaults(ring)


@pytest.fixture(scope="module")
def caller(llm) -> NammLLM:
    return NammLLM(llm.model, max_tokens=60)


def names(response) -> list[str]:
    return [
        block.tool_name for block in response.message.blocks if isinstance(block, ToolCallBlock)
    ]


@pytest.mark.parametrize("choice", ["sign", {"type": "function", "function": {"name": "sign"}}])
def test_07_a_named_tool_is_called(choice, caller):
    response = caller.chat_with_tools([RING, SIGN], "Please", tool_choice=choice)
    assert names(response) == ["sign"]
    (selection,) = caller.get_tool_calls_from_response(response)
    assert isinstance(selection.tool_kwargs["approved"], bool)
    assert selection.tool_id.startswith("call_")


@pytest.mark.parametrize(
    "options", [{"tool_required": True}, {"tool_choice": "required"}, {"tool_choice": "any"}]
)
def test_07_some_tool_is_called(options, caller):
    assert names(caller.chat_with_tools([RING, SIGN], "Please", **options))[0] in ("ring", "sign")


def test_07_none_means_none(caller):
    response = caller.chat_with_tools([SIGN], "Please", tool_choice="none")
    assert names(response) == []
    assert response.message.content == caller.chat([ChatMessage(content="Please")]).message.content
    with pytest.raises(ValueError, match="the model called no tool, it wrote: "):
        caller.get_tool_calls_from_response(response)
    assert caller.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []


def test_07_a_choice_that_there_is_not_is_an_error(caller):
    with pytest.raises(
        UsageError, match="tool_choice must be auto, none, required or one of ring, not 'sing'"
    ):
        caller.chat_with_tools([RING], "Please", tool_choice="sing")
    with pytest.raises(
        UsageError, match="tool_choice must be auto, none, required, any or the name of a tool"
    ):
        caller.chat_with_tools([RING], "Please", tool_choice=["ring"])


def test_no_tools_is_a_chat(caller):
    assert (
        caller.chat_with_tools([], "Please").message.content
        == caller.chat([ChatMessage(content="Please")]).message.content
    )


def test_the_callers_history_is_not_changed(caller):
    history = [ChatMessage(content="Hello")]
    caller.chat_with_tools([RING], "Please", chat_history=history)
    assert history == [ChatMessage(content="Hello")]


def test_all_ways_to_call_give_the_same_call(caller):
    expected = caller.chat_with_tools([SIGN], "Please", tool_required=True)

    async def stream() -> list:
        return [
            one
            async for one in await caller.astream_chat_with_tools(
                [SIGN], "Please", tool_required=True
            )
        ]

    others = [
        asyncio.run(caller.achat_with_tools([SIGN], "Please", tool_required=True)),
        list(caller.stream_chat_with_tools([SIGN], "Please", tool_required=True))[-1],
        asyncio.run(stream())[-1],
    ]
    for response in others:
        selections = [
            caller.get_tool_calls_from_response(one)[0].tool_kwargs for one in (expected, response)
        ]
        assert selections[0] == selections[1]
        assert (
            response.raw["usage"]["completion_tokens"] == expected.raw["usage"]["completion_tokens"]
        )


def test_05_the_model_is_told_of_tools_calls_and_answers(caller):
    """In the text that it reads: the tool's name and words, the call that it made, and what the
    tool answered.
    """
    silent = NammLLM(caller.model, max_tokens=1, prefix_caches=0)
    call = ToolCallBlock(tool_call_id="call_7", tool_name="sign", tool_kwargs={"approved": True})
    history = [
        ChatMessage(content="Please"),
        ChatMessage(role="assistant", blocks=[call]),
        ChatMessage(
            role="tool",
            content="It is signed.",
            additional_kwargs={"tool_call_id": "call_7", "name": "sign"},
        ),
    ]
    with forward_passes(silent) as passes:
        silent.chat_with_tools([SIGN], chat_history=history)
    text = silent.runner.loaded.tokenizer.decode(prompt_of(passes))
    assert "Signs the travel request, or not." in text
    assert json.dumps({"name": "sign", "arguments": {"approved": True}}) in text
    assert text.index("Please") < text.index('{"approved": true}') < text.index("It is signed.")


def test_05_predict_and_call(caller):
    assert caller.predict_and_call([SIGN], "Please", tool_required=True).response.startswith(
        "signed: "
    )
    answer = asyncio.run(caller.apredict_and_call([SIGN], "Please", tool_required=True))
    assert answer.sources[0].raw_output.startswith("signed: ")


@pytest.mark.parametrize("streaming", [True, False])
def test_05_an_agent_runs_its_loop(streaming, caller):
    async def run():
        agent = FunctionAgent(
            tools=[SIGN, RING], llm=caller, initial_tool_choice="sign", streaming=streaming
        )
        return await agent.run("Please")

    output = asyncio.run(run())
    assert [call.tool_name for call in output.tool_calls] == ["sign"]
    assert output.tool_calls[0].tool_output.content.startswith("signed: ")
    assert output.response.content


def test_05_an_agent_workflow_runs(caller):
    async def run():
        agent = FunctionAgent(
            name="clerk", description="Signs.", tools=[RING], llm=caller, initial_tool_choice="ring"
        )
        return await AgentWorkflow(agents=[agent], root_agent="clerk").run("Please")

    assert [call.tool_output.content for call in asyncio.run(run()).tool_calls] == ["rang"]


@pytest.mark.parametrize(
    ("written", "text", "calls"),
    [
        ('Let me see. {"name": "sign", "arguments": {"approved": true}}', "Let me see. ", ["sign"]),
        ('<tool_call>\n{"name": "ring", "arguments": {}}\n</tool_call>', "", ["ring"]),
        (
            '[{"name": "ring", "parameters": {}}, '
            '{"name": "sign", "parameters": {"approved": false}}]',
            "",
            ["ring", "sign"],
        ),
        ("Is 2 < 3? Yes [sure].", "Is 2 < 3? Yes [sure].", []),
        ('{"name": "nobody", "arguments": {}}', '{"name": "nobody", "arguments": {}}', []),
    ],
)
def test_calls_are_found_in_free_text(written, text, calls, caller):
    """The grammar makes the model write the text; that it chose to is all that is not real."""
    grammar = f"start: {json.dumps(written)}"
    responses = list(
        caller.stream_chat_with_tools(
            [SIGN, RING], "Please", allow_parallel_tool_calls=True, grammar=grammar, max_tokens=200
        )
    )
    last = responses[-1]
    assert (last.message.content, names(last)) == (text, calls)
    assert "".join(response.delta for response in responses) == text
    one = caller.chat_with_tools([SIGN, RING], "Please", grammar=grammar, max_tokens=200)
    assert names(one) == calls[:1]
