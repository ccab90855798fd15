"""Guesses from the text change how often the model is called, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from namm_llm.config import SamplingParams
from namm_llm.engine.answer import Answer, Request
from namm_llm.engine.decode import DecodeLoop, PlainBatch, with_lookup
from namm_llm.engine.forward import feed, prefill
from namm_llm.engine.lookup import Rounding, TokenText, rounding_of
from namm_llm.namm import Namm
from namm_llm.runner import Runner

POLICIES = ["streaming_llm", "h2o", "tova", "snapkv", "knorm", "keydiff", "replay", "namm"]
EVICTING = {"policy": "replay", "budget": 0.5, "interval": 32}
# a random model soon repeats itself, which is what is guessed
LONG = {"max_tokens": 100}
OFF, ON = {"prompt_lookup": 0}, {"prompt_lookup": 8}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each decoding call of the model."""
    made: list[int] = []
    step, steps = PlainBatch.step, PlainBatch.steps

    def one(self: PlainBatch, tokens: torch.Tensor) -> torch.Tensor:
        made.append(1)
        return step(self, tokens)

    def several(self: PlainBatch, tokens: list[int]) -> torch.Tensor:
        made.append(len(tokens))
        return steps(self, tokens)

    monkeypatch.setattr(PlainBatch, "step", one)
    monkeypatch.setattr(PlainBatch, "steps", several)
    return made


def both(runner: Runner, prompt: Any, **options: Any) -> list[Any]:
    """The answer without guesses, and with them, without their times."""
    answers = [runner.generate(prompt, **{**LONG, **options}, **lookup) for lookup in (OFF, ON)]
    return [
        (a.text, a.finish_reason, a.usage, a.cache.stored_tokens, a.cache.eviction_steps)
        for a in answers
    ]


def evicting(policy: str) -> dict[str, Any]:
    namm = {"namm": Namm.zeros()} if policy == "namm" else {}
    return {**EVICTING, "policy": policy, **namm}


# -- the same answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_gives_the_same_answer(
    make_runner: Callable[..., Runner], long_text: str, calls: list[int], policy: str
) -> None:
    without, guessed = both(make_runner(**evicting(policy)), long_text)
    assert guessed == without
    assert guessed[4] > 8
    assert max(calls) > 1


@pytest.mark.parametrize(
    "settings",
    [{}, {**EVICTING, "budget_scope": "layer"}, {**EVICTING, "budget_scope": "model"}],
    ids=["full", "layer", "model"],
)
@pytest.mark.parametrize("kv_bits", [None, 8])
def test_every_budget_gives_the_same_answer(
    make_runner: Callable[..., Runner], long_text: str, settings: dict[str, Any], kv_bits: int
) -> None:
    without, guessed = both(make_runner(**settings, kv_bits=kv_bits), long_text)
    assert guessed == without


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.3},
        {"presence_penalty": 0.5, "frequency_penalty": 0.2},
        {"temperature": 1.2, "seed": 5},
        {"stop_loops": True},
        {"regex": "(ab|cd){9}"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_way_of_writing_gives_the_same_answer(
    make_runner: Callable[..., Runner], long_text: str, options: dict[str, Any]
) -> None:
    if "regex" in options:
        pytest.importorskip("llguidance")
    without, guessed = both(make_runner(**EVICTING), long_text, **options)
    assert guessed == without


def test_a_stop_string_inside_a_guess_ends_the_answer(
    make_runner: Callable[..., Runner], long_text: str
) -> None:
    runner = make_runner(**EVICTING)
    whole = runner.generate(long_text, **LONG, **OFF).text
    for start in range(len(whole) // 2, len(whole) // 2 + 12, 3):
        without, guessed = both(runner, long_text, stop=(whole[start : start + 4],))
        assert guessed == without
        assert guessed[1] == "stop"


@pytest.mark.parametrize("count", range(1, 24, 6))
def test_an_answer_cut_anywhere_is_the_beginning_of_the_whole(
    make_runner: Callable[..., Runner], long_text: str, count: int
) -> None:
    without, guessed = both(make_runner(**EVICTING), long_text, max_tokens=60 + count)
    assert guessed == without


def test_a_batch_gives_the_same_answers(
    make_runner: Callable[..., Runner], long_text: str, calls: list[int]
) -> None:
    runner = make_runner(**EVICTING)
    prompts, stop = [long_text, "A", "The quick brown fox"], 40
    params = [{**LONG, **lookup} for lookup in (OFF, ON)]
    ended = runner.generate(prompts[1], max_tokens=stop).text[-6:]
    without, guessed = (runner.generate_batch(prompts, stop=(ended,), **p) for p in params)
    assert [answer.text for answer in guessed] == [answer.text for answer in without]
    assert [answer.usage for answer in guessed] == [answer.usage for answer in without]


def test_a_chat_goes_on_from_a_guessed_answer(tiny_folder: Path, long_text: str) -> None:
    turns = []
    for lookup in (OFF, ON):
        runner = Runner.load(tiny_folder, **EVICTING)
        messages = [{"role": "user", "content": long_text}]
        for question in ("And the fox?", "Why?"):
            answer = runner.chat(messages, max_tokens=70, **lookup)
            messages += [{"role": "assistant", "content": answer.text}]
            messages += [{"role": "user", "content": question}]
        turns.append((answer.text, answer.usage, messages))
    assert turns[0] == turns[1]


def test_a_memory_gives_the_same_answers_read_saved_and_with_its_text(
    make_runner: Callable[..., Runner], long_text: str, tmp_path: Path
) -> None:
    runner = make_runner(**EVICTING)
    read = runner.read(long_text)
    read.save(tmp_path / "a.namm")
    opened, known = runner.open(tmp_path / "a.namm"), runner.open(tmp_path / "a.namm", long_text)
    expected = read.ask("Which vault?", **LONG, **OFF).text
    longer = read.extend(" The end.").ask("Which vault?", **LONG, **OFF).text
    for memory in (read, opened, known):
        assert memory.ask("Which vault?", **LONG, **ON).text == expected
        assert memory.extend(" The end.").ask("Which vault?", **LONG, **ON).text == longer
    assert list(known.request("Why?").memory_ids) == list(read.request("Why?").memory_ids)
    assert len(read.request("Why?").memory_ids) == read.info()["seen_tokens"]
    assert not opened.request("Why?").memory_ids


def test_pieces_of_a_stream_are_single_tokens_that_end_within_a_guess(
    make_runner: Callable[..., Runner], long_text: str, calls: list[int]
) -> None:
    runner = make_runner(**EVICTING)
    expected = list(runner.stream(long_text, **LONG, **OFF))
    assert list(runner.stream(long_text, **LONG, **ON)) == expected
    cancel = threading.Event()
    stream = runner.stream(long_text, max_tokens=400, **ON, cancel=cancel)
    for count, _ in enumerate(stream):
        if count == 20:
            cancel.set()
    result = stream.result
    assert result.finish_reason == "cancelled"
    assert result.cache.seen_tokens <= result.usage.input_tokens + result.usage.output_tokens


# -- the same cache --------------------------------------------------------------------------------


def write(runner: Runner, ids: list[int], count: int, lookup: int) -> Answer:
    """An answer on token ids, with its cache."""
    loaded, cache = runner.loaded, runner.session._engine._new_cache()
    params = SamplingParams(max_tokens=count, prompt_lookup=lookup)
    answer = Answer(Request(ids, params), loaded, None)
    reading = prefill(loaded.model, cache, ids, chunk=512)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            logits = end.value
            break
    batch = with_lookup(PlainBatch(loaded.model, [cache]), [answer], loaded)
    loop = DecodeLoop(lambda _: batch, loaded)
    loop.enter([answer], [logits])
    while loop.going:
        list(loop.step(threading.Event()))
    return answer


@pytest.mark.parametrize("policy", ["h2o", "replay", "namm"])
def test_the_same_tokens_stay(
    make_runner: Callable[..., Runner], long_text: str, policy: str
) -> None:
    runner = make_runner(**evicting(policy))
    ids = [0, *runner.encode(long_text)]
    answers = [write(runner, ids, 100, lookup) for lookup in (0, 8)]
    assert answers[1].output == answers[0].output
    (old, numbers), (new, same) = (answer.cache.state() for answer in answers)  # type: ignore[union-attr]
    assert same == numbers
    assert old.keys() == new.keys()
    for name, tensor in old.items():
        torch.testing.assert_close(new[name].float(), tensor.float(), rtol=1e-3, atol=1e-4)


def test_a_call_never_reaches_the_next_eviction_step(
    make_runner: Callable[..., Runner], long_text: str, calls: list[int]
) -> None:
    runner = make_runner(**EVICTING)
    ids = [0, *runner.encode(long_text)]
    write(runner, ids, 150, 14)
    assert max(calls) == 15
    assert sum(calls) >= 149
    assert len(calls) < 120


# -- what is guessed -------------------------------------------------------------------------------


def test_what_followed_the_longest_match_last_is_guessed() -> None:
    text = TokenText([5, 1, 2, 3, 9, 7, 1, 2, 3, 8, 8, 4, 2, 3, 6, 1, 2, 3], 4)
    assert text.guess(10) == [8, 8, 4, 2]
    assert text.guess(2) == [8, 8]
    assert text.guess(0) == []
    text.add(30)
    assert text.guess(10) == []


def test_a_guess_ends_where_the_text_ends() -> None:
    assert TokenText([4, 4], 8).guess(10) == [4]
    assert TokenText([4], 8).guess(10) == []
    assert TokenText([], 8).guess(10) == []


def test_many_tokens_can_be_added() -> None:
    text = TokenText([], 3)
    for token in range(1000):
        text.add(token % 500)
    assert text.guess(3) == [0, 1, 2]


def test_guessing_stops_where_it_does_not_pay_and_begins_again() -> None:
    text = TokenText([1, 2, 3, 4, 5, 6, 1, 2, 3], None)
    assert text.guess(14)
    for token in range(40):
        text.add(1 + token % 2 * 7)  # 1 came before 2 and never does again
        text.guess(14)
    # noise whose pairs go on otherwise each time
    generator = torch.Generator().manual_seed(0)
    for token in torch.randint(0, 4, (300,), generator=generator).tolist():
        text.add(token)
        guessed = text.guess(14)
    assert not guessed
    for token in list(range(100, 140)) * 3:
        text.add(token)
        guessed = text.guess(14)
    assert len(guessed) == 8


# -- what can be promised --------------------------------------------------------------------------


def test_float32_is_close_and_half_precision_is_left_alone(
    runner: Runner, tiny_folder: Path, calls: list[int]
) -> None:
    assert rounding_of(runner.loaded) is Rounding.CLOSE
    half = Runner.load(tiny_folder, dtype="bfloat16", prefix_caches=0)
    assert rounding_of(half.loaded) is Rounding.OTHER
    half.generate("The quick brown fox", **LONG, **ON)
    assert set(calls) == {1}
    del calls[:]
    runner.generate("The quick brown fox", **LONG, **OFF)
    assert set(calls) == {1}


@pytest.mark.parametrize("bits", ["int4", "int8"])
def test_packed_maps_round_several_tokens_as_one(
    tiny_folder: Path, bits: str, long_text: str, calls: list[int]
) -> None:
    from namm_llm.models.packed import Backend, backend

    runner = Runner.load(tiny_folder, quantization=bits, prefix_caches=0, **EVICTING)
    model = runner.loaded.model
    if backend() is not Backend.COMPILED:
        assert rounding_of(runner.loaded) is Rounding.OTHER
        return
    assert rounding_of(runner.loaded) is Rounding.SAME
    ids = torch.tensor([runner.encode(long_text)[:100]])
    caches = [runner.session._engine._new_cache() for _ in range(2)]
    for cache in caches:
        list(feed(model, cache, ids[:, :85]))
    together = next(feed(model, caches[0], ids[:, 85:95]))
    alone = [next(feed(model, caches[1], ids[:, at : at + 1])) for at in range(85, 95)]
    assert torch.equal(together, torch.cat(alone, 1))
    without, guessed = both(runner, long_text)
    assert guessed == without
    assert max(calls) > 1
