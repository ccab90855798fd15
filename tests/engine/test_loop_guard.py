"""The loop guard ends answers that repeat themselves and changes no other."""

from __future__ import annotations

from pathlib import Path

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


def test_an_answer_ends_in_the_loop_and_says_so(tiny_folder: Path) -> None:
    runner = Runner.load(tiny_folder)
    # what the answer holds already is favoured, so that a random model repeats itself
    options = {"max_tokens": 200, "frequency_penalty": -2.0}
    whole = runner.generate("The fox", **options)
    ended = runner.generate("The fox", stop_loops=True, **options)
    assert (whole.finish_reason, whole.looped) == ("length", False)
    assert (ended.finish_reason, ended.looped) == ("stop", True)
    assert whole.text.startswith(ended.text)
    assert 48 <= ended.usage.output_tokens < 200


@pytest.mark.parametrize("seed", range(6))
def test_an_answer_without_a_loop_is_the_same(tiny_folder: Path, seed: int) -> None:
    runner = Runner.load(tiny_folder)
    options = {"max_tokens": 100, "temperature": 1.5, "seed": seed}
    plain = runner.generate("The fox", **options)
    guarded = runner.generate("The fox", stop_loops=True, **options)
    assert not guarded.looped
    assert (guarded.text, guarded.finish_reason) == (plain.text, plain.finish_reason)
