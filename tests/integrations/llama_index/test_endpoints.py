"""Every endpoint, after the plan of LlamaIndex's own integrations; on a random model."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import pytest
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.llms import ChatMessage, CustomLLM, TextBlock
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.namm import NammLLM

from tests.integrations.llama_index.calls import CALLS, STREAMS, ask
from tests.integrations.llama_index.conftest import TOKENS

PROMPT = "Who signs travel requests?"


def test_it_is_one_of_llama_indexs_llms():
    names = [base.__name__ for base in NammLLM.__mro__]
    assert {BaseLLM.__name__, CustomLLM.__name__, FunctionCallingLLM.__name__} <= set(names)
    assert NammLLM.class_name() == "NammLLM"


@pytest.mark.parametrize("name", CALLS)
def test_every_endpoint_gives_the_same_answer(name, llm):
    expected = llm.runner.chat([{"role": "user", "content": PROMPT}], max_tokens=TOKENS)
    seen = ask(name, llm, PROMPT)
    assert seen.text == expected.text
    assert len(expected.text) > TOKENS // 2
    assert seen.raw["usage"]["completion_tokens"] == TOKENS


@pytest.mark.parametrize("name", STREAMS)
def test_deltas_sum_to_the_text_and_the_last_response_has_the_numbers(name, llm):
    seen = ask(name, llm, PROMPT)
    assert "".join(response.delta for response in seen.responses) == seen.text
    assert len(seen.responses) > 4
    assert [response.raw for response in seen.responses[:-1]] == [None] * (len(seen.responses) - 1)
    assert seen.raw["usage"]["total_tokens"] > TOKENS


@pytest.mark.parametrize("name", STREAMS)
def test_text_grows(name, llm):
    texts = [
        getattr(response, "text", None) or response.message.content
        for response in ask(name, llm, PROMPT).responses
    ]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


def test_predict_stream_and_their_async_forms(llm):
    prompt = PromptTemplate("Who signs {what}?")
    expected = ask("chat", llm, PROMPT).text
    assert llm.predict(prompt, what="travel requests") == expected
    assert "".join(llm.stream(prompt, what="travel requests")) == expected


def test_a_conversation_and_parts(llm):
    turns = [("system", "Be short."), ("user", "Hello"), ("assistant", "Hi"), ("user", PROMPT)]
    expected = llm.runner.chat(
        [{"role": role, "content": text} for role, text in turns], max_tokens=TOKENS
    )
    messages = [ChatMessage(role=role, content=text) for role, text in turns]
    assert llm.chat(messages).message.content == expected.text
    parts = ChatMessage(role="user", blocks=[TextBlock(text="Hello"), TextBlock(text="there")])
    assert llm.chat([parts]).message.content == ask("complete", llm, "Hello\nthere").text


def test_metadata_is_the_models(llm):
    metadata = llm.metadata
    assert (metadata.context_window, metadata.num_output) == (4096, TOKENS)
    assert metadata.is_chat_model
    assert metadata.is_function_calling_model
    assert metadata.model_name == llm.model
    assert NammLLM(llm.model, context_window=1000).metadata.context_window == 1000
    assert not NammLLM(
        llm.model, is_function_calling_model=False
    ).metadata.is_function_calling_model


def test_a_model_without_a_chat_template_completes(tmp_path):
    from tests.tiny import save_tiny

    llm = NammLLM(save_tiny(tmp_path / "plain", template=None), max_tokens=TOKENS)
    assert not llm.metadata.is_chat_model
    expected = llm.runner.generate(PROMPT, max_tokens=TOKENS)
    assert llm.complete(PROMPT).text == expected.text
    assert (
        llm.chat([ChatMessage(content="Hi")]).message.content
        == llm.runner.generate("user: Hi\nassistant: ", max_tokens=TOKENS).text
    )
    assert llm.predict(PromptTemplate(PROMPT)) == expected.text


def test_raw_is_ready_for_json(llm):
    raw = llm.complete(PROMPT, policy="knorm", budget=16, interval=8).raw
    assert json.loads(json.dumps(raw)) == raw
    namm = raw["namm"]
    assert (
        namm["stored_tokens"]
        < namm["seen_tokens"]
        == namm["stored_tokens"] + namm["evicted_tokens"]
    )
    assert namm["nbytes"] > 0
    assert namm["tokens_per_second"] > 0
    assert namm["policy"] == "knorm, budget 16, head"


def test_constructing_loads_nothing():
    code = (
        "import sys; from llama_index.llms.namm import NammLLM\n"
        "NammLLM('no/such-model').to_payload(); NammLLM().to_dict()\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_without_llama_index_the_import_names_the_command():
    code = (
        "import sys; sys.modules['llama_index.core'] = None\n"
        "try:\n    import llama_index.llms.namm\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout
        == "llama_index.llms.namm needs LlamaIndex: pip install 'namm-llm[llama-index]'\n"
    )
