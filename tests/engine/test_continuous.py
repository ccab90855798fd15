"""Requests enter and leave at any time, and nobody waits for somebody else's whole answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from namm_llm.engine import forward
from namm_llm.runner import Runner

PROMPTS = [f"The vault {n} holds" for n in range(8)]
SETTINGS = [{}, {"policy": "h2o", "budget": 0.5, "interval": 16}]
WHOLE = {**SETTINGS[1], "budget_scope": "model"}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Sequences and tokens of each call of the model."""
    made: list[tuple[int, int]] = []
    call = forward._logits

    def counted(model: Any, cache: Any, ids: Any, positions: Any, *, keep: int) -> Any:
        made.append(tuple(ids.shape))
        return call(model, cache, ids, positions, keep=keep)

    monkeypatch.setattr(forward, "_logits", counted)
    return made


@pytest.mark.parametrize("settings", [*SETTINGS, WHOLE], ids=["full", "h2o", "h2o model"])
def test_a_late_request_is_answered_beside_the_others(
    make_runner: Callable[..., Runner], settings: dict[str, Any], passes: list[tuple[int, int]]
) -> None:
    runner = make_runner(**settings)
    alone = [runner.generate(prompt, max_tokens=9).text for prompt in PROMPTS[:4]]
    long_alone = runner.generate("A", max_tokens=120, prompt_lookup=0).text
    del passes[:]
    long, pieces = runner.stream("A", max_tokens=120, prompt_lookup=0), list[str]()
    found = list[str]()
    for prompt in PROMPTS[:4]:  # each enters while the long one is written, and leaves before it
        pieces.append(next(long).text)
        found.append(runner.stream(prompt, max_tokens=9).finished().text)
    pieces += [piece.text for piece in long]
    assert found == alone
    assert "".join(pieces) == long_alone
    assert (2, 1) in passes


def test_a_short_prompt_overtakes_a_long_one(
    make_runner: Callable[..., Runner], passes: list[tuple[int, int]]
) -> None:
    runner = make_runner(chunk=16)
    long = runner.stream([5] * 400, max_tokens=1)
    while not passes:  # the long one is being read
        threading.Event().wait(0.001)
    runner.stream(PROMPTS[0], max_tokens=2, prompt_lookup=0).finished()
    read = sum(tokens for _, tokens in passes)
    assert read < 400, "the short one is answered before the long one is read"
    assert long.finished().usage.output_tokens == 1


def test_a_long_prompt_is_not_starved_by_short_ones(
    make_runner: Callable[..., Runner], long_text: str
) -> None:
    runner = make_runner(chunk=16)
    done, served = threading.Event(), list[int]()

    def flood(number: int) -> None:
        while not done.is_set():
            runner.stream(PROMPTS[number], max_tokens=2).finished()
            served.append(number)

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert runner.stream(long_text, max_tokens=2).finished().usage.output_tokens == 2
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    assert served, "the short ones were answered meanwhile"


def test_what_goes_wrong_with_one_prompt_ends_that_one_alone(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = forward._logits

    def fail(model: Any, cache: Any, ids: Any, positions: Any, *, keep: int) -> Any:
        if 7 in ids:
            raise RuntimeError("token 7")
        return call(model, cache, ids, positions, keep=keep)

    monkeypatch.setattr(forward, "_logits", fail)
    freed = threading.Event()
    threading.Thread(target=lambda: runner.session.call(freed.wait)).start()
    bad, good = runner.stream([7, 8], max_tokens=3), runner.stream([8, 9], max_tokens=3)
    freed.set()
    with pytest.raises(RuntimeError, match="token 7"):
        list(bad)
    assert good.finished().usage.output_tokens == 3


def test_a_document_is_read_beside_an_answer(
    make_runner: Callable[..., Runner], long_text: str, passes: list[tuple[int, int]]
) -> None:
    runner = make_runner(chunk=32)
    expected = runner.read(long_text).ask("Who?", max_tokens=5, prompt_lookup=0).text
    del passes[:]
    answer = runner.stream("A", max_tokens=3000, prompt_lookup=0)
    next(answer)
    document = runner.read(long_text)
    read = [at for at, (_, tokens) in enumerate(passes) if tokens == 32]
    between = [tokens for _, tokens in passes[read[0] : read[-1]]]
    assert between.count(1) >= len(read) - 1, "the answer went on between the pieces"
    answer.close()
    assert document.ask("Who?", max_tokens=5, prompt_lookup=0).text == expected


def test_questions_of_all_lengths_share_the_passes(
    runner: Runner, passes: list[tuple[int, int]]
) -> None:
    document = runner.read("The fox is red. The dog is brown.")
    questions = ["Who?", "Who is red, and who is brown, and who is not? " * 5, "Why?"]
    alone = [document.ask(each, max_tokens=6, prompt_lookup=0).text for each in questions]
    del passes[:]
    together = document.ask_many(questions, max_tokens=6, prompt_lookup=0)
    assert [each.text for each in together] == alone
    assert passes.count((3, 1)) == 5


def test_prompts_that_are_alike_are_read_once(make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(prefix_caches=2, chunk=16)
    freed = threading.Event()
    threading.Thread(target=lambda: runner.session.call(freed.wait)).start()
    prompt = "The quick brown fox jumps over the lazy dog. " * 4
    streams = [runner.stream(prompt, max_tokens=3) for _ in range(3)]
    freed.set()
    usages = [stream.finished().usage for stream in streams]
    cached = sorted(usage.cached_tokens for usage in usages)
    assert cached == [0, usages[0].input_tokens - 1, usages[0].input_tokens - 1]
