"""A document read before, as the context of every prompt."""

from __future__ import annotations

import asyncio
import copy
import pickle
from pathlib import Path

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.namm import NammLLM

from namm_llm import Document, DocumentError, UsageError
from tests.integrations.llama_index.calls import CALLS, ask
from tests.integrations.llama_index.conftest import forward_passes

TEXT = (
    "The rain fell on the harbour. The access code of the amber vault is 48213. "
    "Nobody was at the mill. "
) * 5
QUESTION = "What is the access code of the amber vault?"
ANSWER = "The access code of the amber vault is 48213."


@pytest.fixture(scope="module")
def memory(bundled) -> Document:
    return bundled.runner.read(TEXT)


@pytest.fixture(scope="module")
def saved(memory, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("memory") / "harbour.namm"
    memory.save(file)
    return file


@pytest.mark.parametrize("name", CALLS)
def test_every_endpoint_asks_the_memory_and_reads_only_the_question(name, memory):
    seen = ask(name, NammLLM(memory=memory), QUESTION)
    assert seen.text == ANSWER
    usage = seen.raw["usage"]
    assert usage["cached_tokens"] == memory.info()["seen_tokens"]
    assert usage["prompt_tokens"] - usage["cached_tokens"] < 40


def test_a_file_is_opened_once_and_the_document_is_never_read_again(saved, memory):
    llm = NammLLM(memory=saved)
    with forward_passes(llm) as passes:
        assert llm.complete(QUESTION).text == llm.complete(QUESTION).text == ANSWER
    assert sum(map(len, passes)) < memory.info()["seen_tokens"]
    assert llm._call().memory is llm._call().memory


def test_a_memory_for_one_call(saved, bundled):
    assert bundled.complete(QUESTION, memory=saved).text == ANSWER
    assert "48213" not in bundled.complete(QUESTION).text


def test_a_conversation_about_it(memory):
    llm = NammLLM(memory=memory, system_prompt="Answer from the text.")
    first = ChatMessage(content="Where did the rain fall?")
    turns = [
        first,
        ChatMessage(role="assistant", content="On the harbour."),
        ChatMessage(content=QUESTION),
    ]
    assert "48213" in llm.chat(turns).message.content


def test_a_file_keeps_the_settings_that_it_was_read_with(saved, memory):
    found = NammLLM(memory=saved, policy="streaming_llm", budget=8, interval=16).complete(QUESTION)
    assert found.text == ANSWER
    assert found.raw["namm"]["policy"] == memory.info()["policy"]


def test_the_context_window_is_what_the_memory_leaves(memory):
    assert NammLLM(memory=memory).metadata.context_window == 32_768 - memory.info()["seen_tokens"]


def test_mistakes_are_one_clear_line(saved, memory, tmp_path, tiny_folder):
    with pytest.raises(DocumentError, match="is not there; save one with"):
        NammLLM(memory=tmp_path / "lost.namm").complete(QUESTION)
    with pytest.raises(DocumentError, match="was saved with the weights of"):
        NammLLM(tiny_folder, memory=saved).complete(QUESTION)
    with pytest.raises(
        UsageError, match="memory is a Document, the file of one or the name of a kept one, not int"
    ):
        NammLLM(memory=3).complete(QUESTION)
    for save in (NammLLM(memory=memory).to_dict, lambda: pickle.dumps(NammLLM(memory=memory))):
        with pytest.raises(UsageError, match="save it to a file and give the LLM the file"):
            save()


def test_dict_pickle_and_copies(saved):
    llm = NammLLM(memory=saved, budget=None, max_tokens=20, stop=["."], system_prompt="Be short.")
    for other in (
        NammLLM.from_dict(llm.to_dict()),
        pickle.loads(pickle.dumps(llm)),
        copy.deepcopy(llm),
        llm.model_copy(),
    ):
        assert other.to_dict() == llm.to_dict()
        assert other.complete(QUESTION).text == ANSWER.removesuffix(".")
    assert (
        pickle.loads(pickle.dumps(NammLLM(completion_to_prompt=str.upper))).completion_to_prompt(
            "a"
        )
        == "A"
    )


def test_async_opens_the_file_beside_the_loop(saved):
    async def run() -> int:
        ticks, asking = 0, asyncio.create_task(NammLLM(memory=saved).acomplete(QUESTION))
        while not asking.done():
            await asyncio.sleep(0.001)
            ticks += 1
        assert asking.result().text == ANSWER
        return ticks

    assert asyncio.run(run()) > 5
