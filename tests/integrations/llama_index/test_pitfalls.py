"""The 22 pain points of local integrations (see the README beside the integration), by number, as
far as LlamaIndex has them.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest
from llama_index.core import Settings
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.namm import NammLLM

from namm_llm import ContextError, ModelError, NammError, UsageError
from tests.integrations.llama_index.calls import CALLS, STREAMS, ask
from tests.integrations.llama_index.compare import namm, run
from tests.integrations.llama_index.conftest import TOKENS, forward_passes, prompt_of

PROMPT = "Who signs travel requests?"
LONG = 2000  # tokens that no test waits for


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


@pytest.mark.parametrize("name", CALLS)
def test_01_stop_is_text_across_tokens_cut_off_and_honoured_everywhere(name, llm):
    whole = ask(name, llm, PROMPT).text
    stop = whole[3:7]  # more than one token of this small vocabulary
    seen = ask(name, llm, PROMPT, stop=["never written", stop])
    assert seen.text == whole[: whole.index(stop)]
    assert "".join(response.delta or "" for response in seen.responses) in ("", seen.text)
    assert seen.raw["finish_reason"] == "stop"
    assert ask(name, NammLLM(llm.model, max_tokens=TOKENS, stop=stop), PROMPT).text == seen.text


@pytest.mark.parametrize("name", CALLS)
def test_02_the_prompt_is_never_echoed(name, bundled):
    told = (
        "The access code of the amber vault is 48213. What is the access code of the amber vault?"
    )
    assert ask(name, bundled, told).text == "The access code of the amber vault is 48213."


@pytest.mark.parametrize("name", CALLS)
def test_03_settings_of_one_call_are_honoured_and_typing_errors_raise(name, llm):
    assert ask(name, llm, PROMPT, max_tokens=3).raw["usage"]["completion_tokens"] == 3
    assert ask(name, llm, PROMPT, max_new_tokens=2).raw["usage"]["completion_tokens"] == 2
    sampled = {ask(name, llm, PROMPT, temperature=5.0, seed=seed).text for seed in (1, 2)}
    assert len(sampled) == 2
    assert ask(name, llm, PROMPT, temperature=5.0, seed=1).text in sampled
    with pytest.raises(UsageError, match=r"no setting 'tempurature'; did you mean temperature\?"):
        ask(name, llm, PROMPT, tempurature=0.5)


def test_03_typing_errors_raise_when_it_is_made():
    with pytest.raises(
        UsageError, match=r"NammLLM has no setting 'tempurature'; did you mean temperature\?"
    ):
        NammLLM(tempurature=0.3)
    with pytest.raises(UsageError, match="was given max_tokens twice, once as max_new_tokens"):
        NammLLM(max_tokens=3, max_new_tokens=3)


@pytest.mark.parametrize("name", [name for name in CALLS if name.startswith("a")])
def test_04_and_13_async_runs_while_the_loop_goes_on(name, llm):
    async def count_beside() -> int:
        ticks, asking = 0, [asyncio.create_task(one(name, llm, 100)) for _ in range(2)]
        while not all(task.done() for task in asking):
            await asyncio.sleep(0.001)
            ticks += 1
        return ticks

    assert asyncio.run(count_beside()) > 20  # of a loop that is blocked, one or two


async def one(name: str, llm: NammLLM, tokens: int):
    asked = user(PROMPT) if "chat" in name else PROMPT
    found = await getattr(llm, name)(asked, max_tokens=tokens)
    return [response async for response in found] if "stream" in name else [found]


@pytest.mark.parametrize("name", CALLS)
def test_08_exactly_one_token_begins_the_prompt(name, llm):
    with forward_passes(llm) as passes:
        ask(name, llm, f"{name} begins once", prefix_caches=0)
    bos = llm.runner.loaded.tokenizer.bos_token_id
    assert prompt_of(passes).count(bos) == 1
    assert passes[0][0] == bos


@pytest.mark.parametrize("name", ["complete", "stream_complete", "acomplete", "astream_complete"])
def test_08_one_token_begins_a_formatted_prompt_with_or_without_it(name, llm):
    bos = llm.runner.loaded.tokenizer.bos_token
    for prompt in ("as it stands", f"{bos}as it stands"):
        with forward_passes(llm) as passes:
            ask(name, llm, prompt, formatted=True, prefix_caches=0)
        assert prompt_of(passes) == [
            llm.runner.loaded.tokenizer.bos_token_id,
            *llm.tokenize("as it stands"),
        ]


@pytest.mark.parametrize("name", CALLS)
def test_09_usage_model_and_finish_reason_come_with_every_answer(name, llm):
    raw = ask(name, llm, PROMPT).raw
    asked = llm.runner.count_tokens([{"role": "user", "content": PROMPT}])
    assert raw["usage"]["prompt_tokens"] == asked
    assert raw["usage"]["total_tokens"] == asked + TOKENS
    assert (raw["model"], raw["finish_reason"]) == (llm.model, "length")


def test_10_llama_index_counts_with_the_models_tokenizer(llm):
    before = Settings._tokenizer
    try:
        llm.set_as_global_tokenizer()
        assert (
            Settings.tokenizer("travel requests")
            == llm.tokenize("travel requests")
            == llm.runner.encode("travel requests")
        )
    finally:
        Settings._tokenizer = before


@pytest.mark.parametrize("name", CALLS)
def test_11_an_error_while_generating_reaches_the_reader(name, llm):
    def fail(module, args, output):
        raise RuntimeError("the model broke")

    hook = llm.runner.loaded.model.lm_head.register_forward_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="the model broke"):
            ask(name, llm, f"{name} fails")
    finally:
        hook.remove()
    assert ask(name, llm, PROMPT).raw["usage"]["completion_tokens"] == TOKENS


def test_12_a_stream_that_is_closed_stops_within_a_token(llm):
    with forward_passes(llm) as passes:
        stream = llm.stream_complete(PROMPT, max_tokens=LONG)
        for _ in range(3):
            next(stream)
        stream.close()
        at_close = len(passes)
        llm.complete("next in the queue", max_tokens=1, prefix_caches=0)
    assert (
        len(passes) - at_close <= 1 + 2
    )  # one token of the abandoned answer, and the next prompt (its last token apart)


def test_12_a_stream_that_is_dropped_stops(llm):
    with forward_passes(llm) as passes:
        next(iter(llm.stream_chat(user(PROMPT), max_tokens=LONG)))
        llm.complete("next in the queue", max_tokens=1)
    assert len(passes) < 50


@pytest.mark.parametrize("name", ["acomplete", "achat", "astream_complete", "astream_chat"])
def test_12_cancelling_stops_within_a_token(name, llm):
    async def cancel_early(passes) -> int:
        asking = asyncio.create_task(one(name, llm, LONG))
        while len(passes) < 8:
            await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        at_cancel = len(passes)
        await llm.acomplete("next in the queue", max_tokens=1, prefix_caches=0)
        return len(passes) - at_cancel

    with forward_passes(llm) as passes:
        assert asyncio.run(cancel_early(passes)) <= 1 + 2


def test_12_an_async_stream_that_is_closed_stops(llm):
    async def close_early() -> None:
        stream = await llm.astream_chat(user(PROMPT), max_tokens=LONG)
        await anext(stream)
        await stream.aclose()
        await llm.acomplete("next in the queue", max_tokens=1)

    with forward_passes(llm) as passes:
        asyncio.run(close_early())
    assert len(passes) < 50


def test_14_eight_threads_get_the_answers_that_they_get_alone(llm):
    prompts = [f"{PROMPT} Number {number}" for number in range(8)]
    alone = [llm.complete(prompt).text for prompt in prompts]
    assert len(set(alone)) > 4
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda prompt: llm.complete(prompt).text, prompts)) == alone
        streamed = list(
            pool.map(
                lambda prompt: "".join(piece.delta for piece in llm.stream_complete(prompt)),
                prompts,
            )
        )
    assert streamed == alone


def test_14_sixteen_coroutines_get_the_answers_that_they_get_alone(llm):
    prompts = [f"{PROMPT} Number {number}" for number in range(16)]
    alone = [llm.complete(prompt).text for prompt in prompts]

    async def together() -> list:
        return await asyncio.gather(*(llm.acomplete(prompt) for prompt in prompts))

    assert [response.text for response in asyncio.run(together())] == alone


def test_14_a_call_changes_no_setting_of_another(llm):
    before = llm.to_dict()
    llm.complete(PROMPT, max_tokens=1, budget=16, stop="x", temperature=1.0)
    assert llm.to_dict() == before


def test_14_two_threads_load_one_runner(tiny_folder):
    llm, found = NammLLM(tiny_folder), []
    threads = [Thread(target=lambda: found.append(llm.runner)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(runner) for runner in found}) == 1
    assert (
        NammLLM(tiny_folder).runner.loaded is llm.runner.loaded
    )  # weights are shared in the process


def test_15_a_chat_reads_only_what_is_new(llm):
    history = user("Tell me of travel requests. " * 20)
    first = llm.chat(history)
    second = llm.chat([*history, first.message, *user("And who signs them?")])
    usage = second.raw["usage"]
    assert usage["cached_tokens"] >= first.raw["usage"]["prompt_tokens"] - 1
    assert usage["prompt_tokens"] > usage["cached_tokens"]


@pytest.mark.parametrize("name", CALLS)
def test_16_a_prompt_that_is_too_long_is_a_clear_error(name, llm):
    with pytest.raises(ContextError, match=r"tokens, but .* was trained on 4096 positions"):
        ask(name, llm, "word " * 5000)


def test_16_what_is_evicted_is_reported(llm):
    raw = llm.complete("word " * 100, policy="streaming_llm", budget=32, interval=16).raw
    assert raw["namm"]["evicted_tokens"] > 100
    assert raw["usage"]["prompt_tokens"] > 200


GOLDEN = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe short.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWho signs travel requests?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)


@pytest.mark.parametrize("name", CALLS)
def test_17_every_path_reads_the_same_prompt(name, llm):
    instructed = NammLLM(llm.model, max_tokens=1, system_prompt="Be short.", prefix_caches=0)
    with forward_passes(instructed) as passes:
        ask(name, instructed, PROMPT)
    text = instructed.runner.loaded.tokenizer.decode(prompt_of(passes))
    assert text == GOLDEN


def test_17_predict_and_the_default_prompt_functions_read_the_same(llm):
    instructed = NammLLM(llm.model, max_tokens=1, system_prompt="Be short.", prefix_caches=0)
    for ask_it in (instructed.predict, lambda prompt: list(instructed.stream(prompt))):
        with forward_passes(instructed) as passes:
            ask_it(PromptTemplate(PROMPT))
        assert instructed.runner.loaded.tokenizer.decode(prompt_of(passes)) == GOLDEN
    system = [ChatMessage(role="system", content="Be short.")]
    assert instructed.messages_to_prompt([*system, *user(PROMPT)]) == GOLDEN
    assert "Be short" not in instructed.completion_to_prompt(PROMPT)
    assert PROMPT in instructed.completion_to_prompt(PROMPT)


@pytest.mark.parametrize("name", CALLS)
def test_17_prompt_functions_of_the_user_are_honoured(name, llm):
    own = NammLLM(
        llm.model,
        max_tokens=1,
        prefix_caches=0,
        completion_to_prompt=lambda prompt: f"Q: {prompt} A:",
        messages_to_prompt=lambda messages: f"Q: {messages[-1].content} A:",
    )
    with forward_passes(own) as passes:
        ask(name, own, PROMPT)
    assert prompt_of(passes)[1:] == llm.tokenize(f"Q: {PROMPT} A:")


def test_17_a_system_message_of_the_caller_goes_before_the_llms_own(llm):
    instructed = NammLLM(llm.model, max_tokens=TOKENS, system_prompt="Be long.")
    messages = [ChatMessage(role="system", content="Be short."), *user(PROMPT)]
    assert instructed.chat(messages).message.content == llm.chat(messages).message.content


def test_18_one_word_each_for_device_and_quantization(llm):
    assert NammLLM(llm.model, device="cpu", dtype="float32").complete(PROMPT, max_tokens=2).text
    with pytest.raises(UsageError, match="quantization must be one of"):
        NammLLM(llm.model, quantization="4bit").complete(PROMPT)
    with pytest.raises(UsageError, match="device must be one of"):
        NammLLM(llm.model, device_map="gpu").complete(PROMPT)


def test_19_nothing_is_looked_for_on_the_network():
    with pytest.raises(ModelError):
        NammLLM("nobody/nothing", local_files_only=True).complete(PROMPT)
    with pytest.raises(NammError, match="no model folder"):
        NammLLM("./not-there").complete(PROMPT)


def test_21_every_setting_is_part_of_what_caches_know_it_by(llm):
    changed = {
        **{
            "policy": "knorm",
            "budget": 32,
            "interval": 8,
            "budget_scope": "layer",
            "sinks": 1,
            "protect_recent": 2,
            "chunk": 8,
            "prefix_caches": 0,
        },
        **{
            "max_tokens": 2,
            "temperature": 0.5,
            "top_k": 3,
            "top_p": 0.5,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "seed": 1,
            "stop": "a",
        },
        **{
            "quantization": "nf4",
            "dtype": "bfloat16",
            "json_schema": {"type": "integer"},
            "system_prompt": "Be short.",
            "memory": "a.namm",
        },
    }
    known = [str(NammLLM(llm.model, **{name: value}).to_dict()) for name, value in changed.items()]
    assert len({*known, str(NammLLM(llm.model).to_dict())}) == len(changed) + 1


@pytest.mark.parametrize("name", CALLS)
def test_22_a_call_is_counted_once_with_the_real_numbers(name, llm):
    counter = TokenCountingHandler(tokenizer=lambda text: [0] * 100_000)
    counted = NammLLM(llm.model, max_tokens=TOKENS, callback_manager=CallbackManager([counter]))
    usage = ask(name, counted, PROMPT).raw["usage"]
    assert len(counter.llm_token_counts) == 1
    assert counter.prompt_llm_token_count == usage["prompt_tokens"]
    assert counter.completion_llm_token_count == usage["completion_tokens"] == TOKENS


@pytest.mark.parametrize("name", STREAMS)
def test_22_statistics_never_enter_the_next_prompt(name, llm):
    for response in ask(name, llm, PROMPT).responses:
        assert response.additional_kwargs == {}
        if hasattr(response, "message"):
            assert response.message.additional_kwargs == {}


def test_every_check_of_the_readmes_table_is_passed(tiny_folder):
    found = run(namm(tiny_folder))
    assert len(found) == 14
    assert {check for check, result in found.items() if result != "yes"} == set()
