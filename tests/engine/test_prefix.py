"""A prompt that goes on where an earlier one ended reads only what is new, and gets the same
answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from namm_llm.runner import Runner

SETTINGS: list[dict[str, Any]] = [{}, {"policy": "h2o", "budget": 0.5, "interval": 16}]


@pytest.mark.parametrize("settings", SETTINGS, ids=["full", "h2o"])
def test_the_next_turn_reads_only_what_is_new(
    make_runner: Callable[..., Runner], settings: dict[str, Any]
) -> None:
    keeping, plain = make_runner(**settings, prefix_caches=2), make_runner(**settings)
    ids = [0, *plain.encode("The quick brown fox jumps over the lazy dog. " * 3)]
    for turn in range(4):
        found, expected = keeping.generate(ids, max_tokens=20), plain.generate(ids, max_tokens=20)
        assert found.text == expected.text
        assert found.cache.stored_tokens == expected.cache.stored_tokens
        assert found.usage.input_tokens == expected.usage.input_tokens == len(ids)
        assert (found.usage.cached_tokens > len(ids) // 2) == (turn > 0)
        stream = keeping.stream(ids, max_tokens=20)
        ids += [token for piece in stream for token in piece.token_ids] + plain.encode(
            f" Turn {turn}?"
        )


def test_the_same_prompt_again_reads_one_token(make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(prefix_caches=2)
    messages = [{"role": "user", "content": "Who signs?"}]
    first, again = runner.chat(messages, max_tokens=5), runner.chat(messages, max_tokens=5)
    assert again.text == first.text
    assert (first.usage.cached_tokens, again.usage.cached_tokens) == (
        0,
        first.usage.input_tokens - 1,
    )


def test_a_batch_uses_what_is_kept(make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(prefix_caches=2)
    first = runner.generate("The quick brown fox", max_tokens=5)
    again, other = runner.generate_batch(["The quick brown fox", "A cat"], max_tokens=5)
    assert again.text == first.text
    assert again.usage.cached_tokens == first.usage.input_tokens - 1
    assert other.usage.cached_tokens == 0


def test_a_cancelled_prompt_can_be_gone_on_with(
    make_runner: Callable[..., Runner], long_text: str
) -> None:
    import threading

    runner, cancel = make_runner(prefix_caches=1, chunk=50), threading.Event()
    runner.generate(long_text, cancel=cancel, on_progress=lambda done, total: cancel.set())
    found = runner.generate(long_text, max_tokens=5)
    assert (
        found.usage.cached_tokens % 50 == 0
        or found.usage.cached_tokens == found.usage.input_tokens - 1
    )
    assert found.usage.cached_tokens > 0
    assert found.text == make_runner().generate(long_text, max_tokens=5).text


def test_a_prompt_that_only_begins_alike_shares_nothing(make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(prefix_caches=2)
    runner.generate("The quick brown fox", max_tokens=5)
    assert runner.generate("The quick red fox", max_tokens=5).usage.cached_tokens == 0
    runner.session.call(runner.session._prefixes._kept.clear)
    runner.generate("The quick brown fox", max_tokens=5)
    assert runner.generate("The quick brown", max_tokens=5).usage.cached_tokens == 0


def test_only_so_many_are_kept_and_all_can_be_forgotten(make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(prefix_caches=2)
    for prompt in ("one fox", "two dogs", "three vaults"):
        runner.generate(prompt, max_tokens=3)
    assert len(runner.session._prefixes._kept) == 2
    assert runner.generate("one fox", max_tokens=3).usage.cached_tokens == 0
    assert runner.generate("one fox", max_tokens=3).usage.cached_tokens > 0
    runner.session.call(runner.session._prefixes._kept.clear)
    assert runner.generate("one fox", max_tokens=3).usage.cached_tokens == 0


@pytest.mark.parametrize("settings", SETTINGS, ids=["full", "h2o"])
@pytest.mark.parametrize("question", [10, 60, 200], ids="question of {} tokens".format)
def test_another_question_on_the_same_text_reads_little(
    make_runner: Callable[..., Runner], long_text: str, settings: dict[str, Any], question: int
) -> None:
    keeping, plain = make_runner(**settings, prefix_caches=1), make_runner(**settings)
    text = plain.encode(long_text)
    first, second, third = ([*text, 40 + n, *text[n : n + question]] for n in range(3))
    keeping.generate(first, max_tokens=4)
    found, expected = keeping.generate(second, max_tokens=12), plain.generate(second, max_tokens=12)
    read = len(second) - found.usage.cached_tokens
    assert read <= max(4 * (question + 1), 32)
    assert (found.text, found.cache.stored_tokens) == (expected.text, expected.cache.stored_tokens)
    again = keeping.generate(third, max_tokens=12)  # by now it is known where they part
    assert len(third) - again.usage.cached_tokens <= max(question + 1, 32)
    assert again.text == plain.generate(third, max_tokens=12).text
