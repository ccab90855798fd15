"""The loop guard ends answers that repeat themselves and changes no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from namm_llm import Runner
from namm_llm.engine.loop_guard import LoopGuard

TOKENS = st.lists(st.integers(0, 2), max_size=40)


def loops(tokens: list[int], copies: int, least: int, longest: int) -> bool:
    """The definition: a suffix of one block, often enough and long enough."""
    for length in range(1, longest + 1):
        size = max(copies * length, least)
        suffix = tokens[-size:]
        if len(suffix) == size and all(
            suffix[at] == suffix[at - length] for at in range(length, size)
        ):
            return True
    return False


@given(TOKENS, st.integers(2, 4), st.integers(1, 12), st.integers(1, 9))
def test_it_follows_its_definition(
    tokens: list[int], copies: int, least: int, longest: int
) -> None:
    guard = LoopGuard(copies=copies, least=least, longest=longest)
    for count, token in enumerate(tokens, 1):
        assert guard.feed(token) == loops(tokens[:count], copies, least, longest)


@pytest.mark.parametrize("length", [1, 7, 40, 256])
def test_a_block_is_noticed_with_its_third_copy(length: int) -> None:
    guard, block = LoopGuard(), list(range(length))
    found = [guard.feed(token) for token in [*range(900, 930), *block * 60]]
    assert found.index(True) + 1 == 30 + max(3 * length, 48)


def test_a_list_of_lines_that_differ_is_no_loop() -> None:
    guard = LoopGuard()
    lines = [token for number in range(400) for token in (5, 6, 7, 100 + number, 8)]
    assert not any(guard.feed(token) for token in lines)


def test_an_answer_ends_in_the_loop_and_says_so(tiny_folder: object) -> None:
    runner = Runner.load(tiny_folder)
    whole = runner.generate("The quick brown fox", max_tokens=400)
    ended = runner.generate("The quick brown fox", max_tokens=400, stop_loops=True)
    guard, count = LoopGuard(), 0
    ids = whole.usage.output_tokens
    assert (whole.finish_reason, whole.looped, ids) == ("length", False, 400)
    assert (ended.finish_reason, ended.looped) == ("stop", True)
    assert whole.text.startswith(ended.text)
    tokens = [
        token
        for piece in runner.stream("The quick brown fox", max_tokens=400)
        for token in piece.token_ids
    ]
    while not guard.feed(tokens[count]):
        count += 1
    assert ended.usage.output_tokens == count + 1


@pytest.mark.parametrize("seed", range(6))
def test_an_answer_without_a_loop_is_the_same(tiny_folder: object, seed: int) -> None:
    runner = Runner.load(tiny_folder)
    options = {"max_tokens": 120, "temperature": 1.5, "seed": seed}
    plain = runner.generate("The quick brown fox", **options)
    guarded = runner.generate("The quick brown fox", stop_loops=True, **options)
    assert not guarded.looped
    assert (guarded.text, guarded.usage) == (plain.text, plain.usage)
