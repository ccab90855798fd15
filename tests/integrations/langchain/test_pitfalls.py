"""What other local integrations get wrong, one test for each: the rows of the README's table of
pitfalls, for both classes.
"""

from __future__ import annotations

import asyncio
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_namm import ChatNamm, NammLLM
from pydantic import BaseModel

from namm_llm import ContextError, Runner, UsageError
from tests.tiny import BOS, save_tiny

QUESTION = "Who signs travel requests?"


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@tool
def ping() -> str:
    """Says hello."""
    return "hello"


def runner_of(model: ChatNamm | NammLLM) -> Runner:
    return model._call().runner


def text_of(part: Any) -> str:
    return part if isinstance(part, str) else part.content


async def every_way(model: ChatNamm | NammLLM, prompt: Any, **settings: Any) -> list[str]:
    """invoke, stream, ainvoke, astream, batch, abatch."""
    found = [
        text_of(model.invoke(prompt, **settings)),
        "".join(text_of(part) for part in model.stream(prompt, **settings)),
    ]
    found.append(text_of(await model.ainvoke(prompt, **settings)))
    found.append("".join([text_of(part) async for part in model.astream(prompt, **settings)]))
    found += [text_of(one) for one in model.batch([prompt, prompt], **settings)]
    return found + [text_of(one) for one in await model.abatch([prompt, prompt], **settings)]


@pytest.fixture(params=["chat", "llm"])
def model(request: pytest.FixtureRequest) -> ChatNamm | NammLLM:
    return request.getfixturevalue(request.param)


async def test_01_stop_texts_end_every_kind_of_answer_and_are_cut_off(model: Any) -> None:
    whole = text_of(model.invoke(QUESTION))
    stop = whole[5:8]
    cut = whole[: whole.index(stop)]
    assert await every_way(model, QUESTION, stop=[stop]) == [cut] * 8
    assert text_of(model.bind(stop=[stop]).invoke(QUESTION)) == cut
    own = model.model_copy(update={"stop": [stop]})
    assert (
        text_of(own.invoke(QUESTION)) == text_of(own.invoke(QUESTION, stop=["never there"])) == cut
    )


async def test_02_no_answer_repeats_its_prompt_and_all_ways_say_the_same(model: Any) -> None:
    found = await every_way(model, QUESTION)
    assert found == found[:1] * 8
    assert found[0]
    assert QUESTION not in found[0]


async def test_03_settings_of_a_call_are_honoured(model: Any) -> None:
    short = await every_way(model, QUESTION, max_tokens=4)
    assert short == short[:1] * 8
    whole = text_of(model.invoke(QUESTION))
    assert 0 < len(short[0]) < len(whole)
    assert text_of(model.bind(max_new_tokens=4).invoke(QUESTION)) == short[0]
    sampled = {text_of(model.invoke(QUESTION, temperature=2.0, seed=seed)) for seed in (1, 2)}
    assert len(sampled | {whole}) == 3


def test_03_typing_errors_are_told(folder: Path, model: Any) -> None:
    with pytest.raises(
        UsageError, match=r"ChatNamm has no setting 'tempurature'; did you mean temperature\?"
    ):
        ChatNamm(model=str(folder), tempurature=0.3)
    with pytest.warns(UserWarning, match=r"no setting 'max_token'; did you mean max_tokens\?"):
        model.invoke(QUESTION, max_token=3)
    with pytest.raises(UsageError, match="temperature must be a number from 0 on, not -1"):
        model.invoke(QUESTION, temperature=-1)


async def test_04_async_is_native_and_leaves_the_loop_alone(model: Any) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await model.ainvoke(QUESTION, max_tokens=100)
    ticking.cancel()
    assert ticks > 20


def test_05_tools_reach_the_model_and_the_whole_loop_runs(chat: ChatNamm) -> None:
    bound = chat.bind_tools([add])
    told = runner_of(chat).render_chat(
        [{"role": "user", "content": QUESTION}], bound.kwargs["tools"]
    )
    assert '"name": "add"' in told
    assert bound.invoke(QUESTION).usage_metadata["input_tokens"] == runner_of(chat).count_tokens(
        [*_one()], bound.kwargs["tools"]
    )
    call = chat.bind_tools([add], tool_choice="any").invoke(QUESTION, max_tokens=60)
    answer = add.invoke(call.tool_calls[0])
    history = [HumanMessage(QUESTION), call, answer]
    assert bound.invoke(history).content
    assert answer.content in _rendered(chat, history)
    assert '{"name": "add"' in _rendered(chat, history)


def _one() -> list[dict[str, Any]]:
    return [{"role": "user", "content": QUESTION}]


def _rendered(chat: ChatNamm, messages: list[Any]) -> str:
    from langchain_namm.messages import to_openai

    return runner_of(chat).render_chat(to_openai(messages))


class Person(BaseModel):
    name: str
    age: int


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
async def test_06_structured_output_keeps_its_schema(chat: ChatNamm, method: str) -> None:
    asked = chat.with_structured_output(Person, method=method)
    for found in (
        asked.invoke(QUESTION, max_tokens=60),
        await asked.ainvoke(QUESTION, max_tokens=60),
    ):
        assert isinstance(found, Person)
    raw = chat.with_structured_output(Person, method=method, include_raw=True).invoke(
        QUESTION, max_tokens=3
    )
    assert raw["raw"].response_metadata["finish_reason"] == "length"
    assert (raw["parsed"], raw["parsing_error"] is not None or method == "function_calling") == (
        None,
        True,
    )
    schema = {
        "title": "answer",
        "description": "x",
        "type": "object",
        "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"],
    }
    assert (
        type(
            chat.with_structured_output(schema, method=method).invoke(QUESTION, max_tokens=40)[
                "yes"
            ]
        )
        is bool
    )


@pytest.mark.parametrize(
    "choice",
    [
        "any",
        "required",
        True,
        "add",
        {"type": "function", "function": {"name": "add"}},
        {"type": "any"},
    ],
)
async def test_07_a_forced_tool_choice_always_calls(chat: ChatNamm, choice: Any) -> None:
    bound = chat.bind_tools([add], tool_choice=choice)
    streamed = None
    for chunk in bound.stream(QUESTION, max_tokens=60):
        streamed = chunk if streamed is None else streamed + chunk
    for found in (
        bound.invoke(QUESTION, max_tokens=60),
        await bound.ainvoke(QUESTION, max_tokens=60),
        streamed,
    ):
        assert [call["name"] for call in found.tool_calls] == ["add"]
        assert set(found.tool_calls[0]["args"]) == {"a", "b"}
        assert found.content == ""
        assert found.response_metadata["finish_reason"] == "tool_calls"


def test_07_one_of_several_none_and_unknown_choices(chat: ChatNamm) -> None:
    several = chat.bind_tools([add, ping], tool_choice="any").invoke(QUESTION, max_tokens=80)
    assert several.tool_calls[0]["name"] in ("add", "ping")
    assert (
        chat.bind_tools([add, ping], tool_choice="ping")
        .invoke(QUESTION, max_tokens=60)
        .tool_calls[0]["name"]
        == "ping"
    )
    assert (
        chat.bind_tools([add], tool_choice="none").invoke(QUESTION).content
        == chat.invoke(QUESTION).content
    )
    with pytest.raises(
        UsageError, match="tool_choice must be auto, none, required or one of add, not 'sub'"
    ):
        chat.bind_tools([add], tool_choice="sub").invoke(QUESTION)


def test_08_every_prompt_has_one_beginning_of_text(
    chat: ChatNamm, llm: NammLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from namm_llm.engine.answer import Request

    read: list[list[int]] = []
    made = Request.__init__

    def noted(self: Request, ids: list[int], *args: Any, **kwargs: Any) -> None:
        read.append(ids)
        made(self, ids, *args, **kwargs)

    monkeypatch.setattr(Request, "__init__", noted)
    prompt = ChatPromptTemplate([("system", "Be brief."), ("user", "{question}")]).invoke(
        {"question": QUESTION}
    )
    chat.invoke(prompt)
    list(chat.stream(prompt))
    llm.invoke(prompt)
    list(llm.stream(prompt))
    assert {ids.count(0) for ids in read} == {1}
    chats = [ids for ids in read if read]
    assert len({tuple(ids) for ids in chats}) == 1  # a golden prompt: one on all paths
    assert runner_of(llm).decode(chats[0]).startswith("system\n\nBe brief.user\n\nWho signs")
    llm.batch([QUESTION, f"{BOS}{QUESTION}"])
    assert [ids.count(0) for ids in read[-2:]] == [1, 1]


async def test_09_every_answer_carries_its_numbers(chat: ChatNamm, llm: NammLLM) -> None:
    chunks = list(chat.stream(QUESTION))
    for message in (
        chat.invoke(QUESTION),
        await chat.ainvoke(QUESTION),
        sum(chunks[1:], chunks[0]),
    ):
        assert message.usage_metadata["output_tokens"] == 12
        assert message.usage_metadata["input_tokens"] == chat.get_num_tokens_from_messages(
            [HumanMessage(QUESTION)]
        )
        assert message.response_metadata["model_name"] == chat.model
        assert message.response_metadata["finish_reason"] == "length"
        numbers = message.response_metadata["namm"]
        assert numbers["stored_tokens"] + numbers["evicted_tokens"] == numbers["seen_tokens"]
        assert min(numbers["nbytes"], numbers["tokens_per_second"]) > 0
    assert sum(chunk.usage_metadata is not None for chunk in chunks) == 1
    result = llm.generate([QUESTION, QUESTION])
    used = result.llm_output["token_usage"]
    assert used["completion_tokens"] == 24
    assert used["total_tokens"] == used["prompt_tokens"] + 24
    assert result.generations[0][0].generation_info["finish_reason"] == "length"
    assert list(llm.stream(QUESTION))  # plain text for LLMs; the numbers go to callbacks
    with get_usage_metadata_callback() as counted:
        chat.invoke(QUESTION)
    assert counted.usage_metadata[chat.model]["output_tokens"] == 12


def test_10_tokens_are_counted_by_the_models_tokenizer(chat: ChatNamm, llm: NammLLM) -> None:
    runner = runner_of(llm)
    for model in (chat, llm):
        assert model.get_token_ids(QUESTION) == runner.encode(QUESTION)
        assert model.get_num_tokens(QUESTION) == len(runner.encode(QUESTION))
        assert model.get_num_tokens_from_messages([HumanMessage(QUESTION)]) == runner.count_tokens(
            _one()
        )
    history = [HumanMessage(f"Message {n}") for n in range(9)]
    kept = trim_messages(
        history, token_counter=chat, max_tokens=chat.get_num_tokens_from_messages(history[:3])
    )
    assert kept == history[6:]


async def test_11_an_error_while_generating_reaches_the_consumer(model: Any) -> None:
    text_of(model.invoke(QUESTION))
    head, count = runner_of(model).loaded.model.lm_head, 0

    def fail(*args: Any) -> None:
        nonlocal count
        count += 1
        if count > 4:
            raise RuntimeError("kernel lost")

    hook = head.register_forward_hook(fail)
    ways = [
        lambda: model.invoke("A"),
        lambda: list(model.stream("B")),
        lambda: model.batch(["C", "D"]),
    ]
    for way in ways:
        count = 0
        with pytest.raises(RuntimeError, match="kernel lost"):
            way()
    for coroutine in (model.ainvoke("E"), _all(model.astream("F"))):
        count = 0
        with pytest.raises(RuntimeError, match="kernel lost"):
            await coroutine
    hook.remove()
    assert text_of(model.invoke(QUESTION))


async def _all(chunks: Any) -> list[Any]:
    return [chunk async for chunk in chunks]


def test_12_an_abandoned_stream_frees_the_worker_within_one_token(
    model: Any, forwards: list[int]
) -> None:
    for leave in ("close", "drop"):
        stream = model.stream(QUESTION, max_tokens=4000)
        next(stream)
        if leave == "close":
            stream.close()
        del stream
        gc.collect()
        count = len(forwards)
        runner_of(model).session.call(lambda: None)
        assert len(forwards) <= count + 1


@pytest.mark.parametrize("way", ["ainvoke", "astream"])
async def test_12_a_cancelled_task_frees_the_worker_within_one_token(
    model: Any, forwards: list[int], way: str
) -> None:
    coroutine = (
        model.ainvoke(QUESTION, max_tokens=4000)
        if way == "ainvoke"
        else _all(model.astream(QUESTION, max_tokens=4000))
    )
    task = asyncio.create_task(coroutine)
    while len(forwards) < 5 and not task.done():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    count = len(forwards)
    await asyncio.to_thread(runner_of(model).session.call, lambda: None)
    assert len(forwards) <= count + 1


async def test_14_threads_and_coroutines_get_the_answers_they_get_alone(
    model: Any, forwards: list[int]
) -> None:
    prompts = [f"The vault {n} holds" for n in range(16)]
    alone = [text_of(model.invoke(prompt)) for prompt in prompts]
    del forwards[:]
    with ThreadPoolExecutor(8) as pool:
        assert [text_of(one) for one in pool.map(model.invoke, prompts[:8])] == alone[:8]
    assert [text_of(one) for one in await asyncio.gather(*map(model.ainvoke, prompts))] == alone
    assert max(forwards) > 1 or isinstance(
        model, NammLLM
    )  # callers of a chat are answered together


def test_14_weights_are_shared_and_nothing_is_loaded_before_the_first_question(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Runner, "load", lambda *_, **__: pytest.fail("loaded"))
        chat, llm = (
            ChatNamm(model=str(folder)),
            NammLLM(model=str(folder), policy="h2o", budget=0.5),
        )
    assert runner_of(chat).loaded is runner_of(llm).loaded
    assert runner_of(chat) is runner_of(ChatNamm(model=str(folder)))
    assert runner_of(llm).config.describe() == "h2o, budget 0.5, head"


def test_15_a_history_is_read_once_and_reported(chat: ChatNamm) -> None:
    history: list[Any] = [SystemMessage("Be brief. " * 20), HumanMessage(QUESTION)]
    chat.invoke(history)
    # not the answer itself: a chat goes on from its very tokens, and random weights write some that
    # no text gives (tests/runner)
    history += [AIMessage("Nobody knows."), HumanMessage("And who reads them?")]
    fresh = ChatNamm(model=chat.model, max_tokens=12, prefix_caches=0).invoke(history)
    second = chat.invoke(history)
    read = (
        second.usage_metadata["input_tokens"]
        - second.usage_metadata["input_token_details"]["cache_read"]
    )
    assert second.content == fresh.content
    assert fresh.usage_metadata["input_token_details"]["cache_read"] == 0
    assert read < second.usage_metadata["input_tokens"] / 2


def test_16_overflow_is_an_error_and_eviction_is_told(tmp_path: Path, folder: Path) -> None:
    short = ChatNamm(model=str(save_tiny(tmp_path / "short", positions=64)))
    with pytest.raises(ContextError, match="was trained on 64 positions"):
        short.invoke(QUESTION * 20)
    evicting = NammLLM(model=str(folder), policy="h2o", budget=0.5, interval=32, max_tokens=4)
    info = evicting.generate([QUESTION * 20]).generations[0][0].generation_info
    assert info["namm"]["policy"] == "h2o, budget 0.5, head"
    assert info["namm"]["evicted_tokens"] > 40


def test_18_wrong_placement_is_one_clear_line(folder: Path) -> None:
    with pytest.raises(UsageError, match="device must be one of auto, cpu, cuda"):
        ChatNamm(model=str(folder), device="gpu").invoke(QUESTION)
    with pytest.raises(UsageError, match=r"quantization must be one of .*, not 'int3'"):
        NammLLM(model=str(folder), quantization="int3")


def test_19_the_default_model_is_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAMM_MODEL", raising=False)
    assert ChatNamm().model == NammLLM().model == "namm-tiny"
    assert (
        ChatNamm().profile["max_input_tokens"] == runner_of(NammLLM()).context_window
    )  # sockets are blocked here


def test_20_a_batch_of_texts_is_one_padded_batch(llm: NammLLM, forwards: list[int]) -> None:
    prompts = ["A", "The quick brown fox", QUESTION, "Ein Tag"]
    alone = [llm.invoke(prompt) for prompt in prompts]
    del forwards[:]
    assert llm.batch(prompts) == alone
    assert max(forwards) == 4
    del forwards[:]
    assert llm.batch(prompts, config={"max_concurrency": 2}) == alone
    assert max(forwards) == 2


def test_21_cached_answers_belong_to_all_settings(folder: Path) -> None:
    for cls in (ChatNamm, NammLLM):
        cache = InMemoryCache()
        model = cls(model=str(folder), max_tokens=12, cache=cache)
        ways: list[dict[str, Any]] = [
            {},
            {"max_tokens": 5},
            {"temperature": 2.0, "seed": 1},
            {"policy": "knorm", "budget": 8, "interval": 16},
        ]
        answers = [text_of(model.invoke(QUESTION * 4, **way)) for way in ways]
        assert len(cache._cache) == len(ways)
        assert [text_of(model.bind(**way).invoke(QUESTION * 4)) for way in ways] == answers
        assert [
            text_of(model.model_copy(update=way).invoke(QUESTION * 4)) for way in ways
        ] == answers
        other = cls(model=str(folder), max_tokens=3, cache=cache)
        assert text_of(other.invoke(QUESTION * 4)) not in answers[:2]


class Tokens(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.seen.append(token)


def test_a_callback_hears_each_piece_once(model: Any) -> None:
    heard = Tokens()
    pieces = [text_of(part) for part in model.stream(QUESTION, config={"callbacks": [heard]})]
    assert [text for text in heard.seen if text] == [text for text in pieces if text]


def test_models_can_be_copied_and_pickled(model: Any) -> None:
    answer = text_of(model.invoke(QUESTION))
    again = pickle.loads(pickle.dumps(model))
    assert len(again._runners) == 0
    assert (
        text_of(again.invoke(QUESTION))
        == text_of(model.model_copy(deep=True).invoke(QUESTION))
        == answer
    )


def test_what_tracing_and_versions_say(model: Any) -> None:
    assert set(model.metadata["lc_versions"]) >= {"langchain-core", "namm-llm"}
    told = model._get_ls_params(stop=["x"], model="other", max_tokens=3)
    assert (told["ls_provider"], told["ls_model_name"], told["ls_max_tokens"], told["ls_stop"]) == (
        "namm",
        "other",
        3,
        ["x"],
    )


def test_pictures_are_refused_in_one_line(chat: ChatNamm) -> None:
    message = HumanMessage(
        [
            {"type": "text", "text": "What?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        ]
    )
    with pytest.raises(
        UsageError,
        match="the model reads text only, and a message holds a part of the type image_url",
    ):
        chat.invoke([message])


def test_an_answer_of_a_tool_may_be_a_list_of_parts(chat: ChatNamm) -> None:
    call = AIMessage(
        [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "1", "name": "add", "input": {}},
        ],
        tool_calls=[{"name": "add", "args": {"a": 1, "b": 2}, "id": "1", "type": "tool_call"}],
    )
    text = _rendered(
        chat,
        [
            HumanMessage("1 and 2?"),
            call,
            ToolMessage([{"type": "text", "text": "3"}], tool_call_id="1"),
        ],
    )
    assert "I look.\n" in text
    assert '{"a": 1, "b": 2}' in text
