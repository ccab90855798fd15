"""The loop gives what transformers' own `generate` gives, however the prompt is cut and whatever
runs beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from namm_llm.cache import ManagedCache
from namm_llm.config import SamplingParams, make_cache_config
from namm_llm.engine.answer import Answer, Request
from namm_llm.engine.decode import DecodeLoop, PlainBatch
from namm_llm.engine.forward import prefill
from namm_llm.errors import ContextError, UsageError
from namm_llm.runner import Runner
from tests.tiny import save_tiny

MESSAGES = [{"role": "user", "content": "Who signs travel requests?"}]
PROMPTS: list[Any] = ["The quick brown fox", MESSAGES, "A", "Ein schöner Tag, ein Café. " * 6]
EVICTING = {"policy": "h2o", "budget": 0.5, "interval": 32}
SAMPLED = {"temperature": 1.5, "top_k": 50, "seed": 3}


def greedy(runner: Runner, ids: list[int], count: int) -> list[int]:
    """transformers' own answer, with its own cache."""
    out = runner.loaded.model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=3,
    )
    return out[0, len(ids) :].tolist()  # type: ignore[no-any-return,index]


@pytest.mark.parametrize("chunk", [1, 16, 100, 512, 10_000])
def test_the_same_tokens_as_transformers(
    make_runner: Callable[..., Runner], long_text: str, chunk: int
) -> None:
    runner = make_runner(chunk=chunk)
    ids = [0, *runner.encode(long_text)][:201]
    expected = greedy(runner, ids, 24)
    assert own_greedy(runner, ids, 24, chunk) == expected
    assert runner.generate(ids[:60], max_tokens=24).text == runner.decode(
        greedy(runner, ids[:60], 24)
    ).rstrip("\ufffd")


def own_greedy(runner: Runner, ids: list[int], count: int, chunk: int = 512) -> list[int]:
    """Our loop on token ids."""
    loaded, cache = runner.loaded, ManagedCache.for_model(runner.loaded.model)
    answer = Answer(Request(ids, SamplingParams(max_tokens=count)), loaded, None)
    reading = prefill(loaded.model, cache, ids, chunk=chunk)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            logits = end.value
            break
    loop = DecodeLoop(lambda _: PlainBatch(loaded.model, [cache]), loaded)
    loop.enter([answer], [logits])
    while loop.going:
        list(loop.step(threading.Event()))
    return answer.output


@pytest.mark.parametrize("chunk", [1, 7, 100, 512])
@pytest.mark.parametrize("budget_scope", ["head", "model"])
def test_the_chunk_does_not_change_the_answer_under_eviction(
    make_runner: Callable[..., Runner], long_text: str, chunk: int, budget_scope: str
) -> None:
    expected = make_runner(**EVICTING, budget_scope=budget_scope, chunk=64).generate(
        long_text, max_tokens=40
    )
    found = make_runner(**EVICTING, budget_scope=budget_scope, chunk=chunk).generate(
        long_text, max_tokens=40
    )
    assert found.text == expected.text
    assert found.cache == expected.cache
    assert found.cache.kept_fraction < 0.65


@pytest.mark.parametrize(
    "eviction",
    [{}, EVICTING, {**EVICTING, "budget_scope": "model"}],
    ids=["full", "h2o", "h2o model"],
)
@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_a_batch_answers_what_its_prompts_answer_alone(
    make_runner: Callable[..., Runner], eviction: dict[str, Any], sampling: dict[str, Any]
) -> None:
    runner = make_runner(**eviction)
    alone = [runner.generate(prompt, max_tokens=30, **sampling) for prompt in PROMPTS]
    together = runner.generate_batch(PROMPTS, max_tokens=30, **sampling)
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.usage for one in together] == [one.usage for one in alone]
    assert [one.finish_reason for one in together] == [one.finish_reason for one in alone]
    assert [one.cache.stored_tokens for one in together] == [
        one.cache.stored_tokens for one in alone
    ]


def test_rows_of_a_batch_end_where_they_should(runner: Runner) -> None:
    alone = [runner.generate(prompt, max_tokens=30) for prompt in PROMPTS]
    stop = alone[0].text[3:5]
    together = runner.generate_batch(PROMPTS, max_tokens=30, stop=(stop,))
    assert together[0].finish_reason == "stop"
    assert [one.text for one in together] == [one.text.split(stop)[0] for one in alone]


def test_an_empty_batch_has_no_answers(runner: Runner) -> None:
    assert runner.generate_batch([]) == []


def test_more_prompts_than_a_batch_holds(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [one.text for one in runner.generate_batch(PROMPTS, max_tokens=5)]
    monkeypatch.setattr("namm_llm.engine.engine.BATCH", 3)
    assert [one.text for one in runner.generate_batch(PROMPTS, max_tokens=5)] == expected


def test_stream_and_generate_say_the_same(runner: Runner) -> None:
    stream = runner.stream("The quick", max_tokens=30)
    text = "".join(piece.text for piece in stream)
    assert text == stream.result.text == runner.generate("The quick", max_tokens=30).text
    assert not text.endswith("\ufffd")


def test_a_stop_string_over_several_pieces_ends_the_answer(runner: Runner) -> None:
    pieces = [piece.text for piece in runner.stream("The quick", max_tokens=30)]
    text = "".join(pieces)
    border = len("".join(pieces[:5]))
    stop = text[border - 2 : border + 2]
    found = runner.generate("The quick", max_tokens=30, stop=(stop,))
    assert found.text == text[: text.index(stop)]
    assert found.finish_reason == "stop"
    assert found.usage.output_tokens < 30


def test_an_end_token_ends_the_answer(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = own_greedy(runner, [0, *runner.encode("The quick")], 10)
    monkeypatch.setitem(runner.loaded.__dict__, "end_ids", frozenset({ids[4]}))
    found = runner.generate("The quick", max_tokens=10)
    first = ids.index(ids[4])
    assert (found.finish_reason, found.usage.output_tokens) == ("stop", first + 1)
    assert found.text == runner.decode(ids[:first]).rstrip("\ufffd")


def test_numbers_of_a_result(runner: Runner) -> None:
    found = runner.generate(MESSAGES, max_tokens=7)
    assert found.usage.input_tokens == runner.count_tokens(MESSAGES)
    assert (found.usage.cached_tokens, found.usage.output_tokens) == (0, 7)
    assert found.cache.seen_tokens == found.usage.input_tokens + 6  # the last token never goes in
    assert found.timings.first_token_seconds >= found.timings.prefill_seconds > 0
    assert found.timings.decode_seconds > 0
    assert found.model == runner.model_id
    as_json = found.to_dict()
    assert list(as_json) == [
        *(
            "text",
            "finish_reason",
            "usage",
            "timings",
            "cache",
            "model",
            "looped",
            "closed_early",
            "logprobs",
        )
    ]
    assert list(as_json["usage"]) == ["input_tokens", "cached_tokens", "output_tokens"]
    assert list(as_json["timings"]) == [
        "load_seconds",
        "prefill_seconds",
        "first_token_seconds",
        "decode_seconds",
    ]
    assert list(as_json["cache"])[:4] == ["seen_tokens", "stored_tokens", "kept_fraction", "nbytes"]


def test_progress_is_told(make_runner: Callable[..., Runner], long_text: str) -> None:
    told: list[tuple[int, int]] = []
    runner = make_runner(chunk=100)
    runner.generate(
        long_text, max_tokens=1, on_progress=lambda done, total: told.append((done, total))
    )
    count = runner.count_tokens(long_text)
    assert told == [*((done, count) for done in range(100, count, 100)), (count, count)]


def test_no_torch_context_leaks_into_the_reader(runner: Runner) -> None:
    for _ in runner.stream("The quick", max_tokens=3):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


@pytest.fixture(scope="module")
def short_runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A model with 64 trained positions."""
    return Runner.load(save_tiny(tmp_path_factory.mktemp("short") / "short", positions=64))


def test_a_prompt_beyond_the_trained_positions_is_refused(short_runner: Runner) -> None:
    with pytest.raises(ContextError) as error:
        short_runner.generate([5] * 64)
    assert str(error.value) == (
        f"the prompt has 64 tokens, but {short_runner.model_id} was trained on 64 positions, one "
        "of them for the answer. Ways out: a budget in tokens or bytes (budget=2048), with which "
        "texts of any length are read; a summary, which is made in parts; RoPE scaling "
        "(rope_scaling='yarn:4')."
    )
    with pytest.raises(ContextError, match="the document has "):
        short_runner.read("The quick brown fox. " * 20)


def test_an_answer_ends_at_the_last_trained_position(short_runner: Runner) -> None:
    found = short_runner.generate([5] * 60, max_tokens=100)
    assert (found.finish_reason, found.usage.output_tokens) == ("length", 4)


def test_a_question_that_does_not_fit_behind_its_document_is_refused(short_runner: Runner) -> None:
    document = short_runner.read("The fox is red. ")
    with pytest.raises(
        ContextError, match=r"the question has \d+ tokens after the \d+ of the document, but "
    ):
        document.ask("Why? " * 20)


@pytest.mark.parametrize("ids", [[400_000], [-1]])
def test_ids_outside_the_vocabulary_are_refused(runner: Runner, ids: list[int]) -> None:
    with pytest.raises(UsageError, match="token ids go from 0 to "):
        runner.generate(ids)


def test_wrong_settings_of_a_runner_are_refused(tiny_folder: Any) -> None:
    with pytest.raises(UsageError, match="chunk must be a whole number of tokens from 1 on, not 0"):
        Runner.load(tiny_folder, chunk=0)
    with pytest.raises(
        UsageError, match=r"sampling has no setting 'max_new_tokens' \(did you mean max_tokens"
    ):
        Runner.load(tiny_folder).generate("x", max_new_tokens=5)


def test_a_policy_is_refused_before_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("namm_llm.runner.load_model", lambda *_, **__: pytest.fail("loaded it"))
    for settings, message in [
        ({"policy": "h20"}, "there is no policy 'h20'"),
        ({"budget": "lots"}, "'lots' is not a budget"),
    ]:
        with pytest.raises(UsageError, match=message):
            Runner.load("x/y", **settings)  # type: ignore[arg-type]


def test_the_namm_beside_the_weights_is_the_default_one(tmp_path: Any) -> None:
    from namm_llm.namm import Namm

    folder = save_tiny(tmp_path / "model")
    Namm.zeros().save(folder / "namm.safetensors")
    runner = Runner.load(folder, policy="namm")
    assert runner.config == make_cache_config("namm", namm=Namm.zeros(), chunked=True)
    assert runner.generate("The fox", max_tokens=3).cache.policy.startswith("namm")
