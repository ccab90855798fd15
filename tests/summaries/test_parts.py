"""Parts: put together they are the text, each fits, and they end where a reader would end them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from namm_llm.summaries.parts import cut

TEXTS = st.text(alphabet=st.sampled_from("ab. \n\t!?。漢é🙂\u0301"), min_size=1, max_size=300)


def words(text: str) -> list[int]:
    """A tokenizer: pieces of at most three letters, each with the space before it."""
    return [match.start() for match in re.finditer(r"\s?\S{1,3}|\s", text)]


def parts_of(text: str, limit: int) -> list[str]:
    return cut(text, words(text), limit, lambda part: len(words(part)) <= limit)


@given(TEXTS, st.integers(1, 40))
def test_nothing_is_lost_and_everything_fits(text: str, limit: int) -> None:
    parts = parts_of(text, limit)
    assert "".join(parts) == text
    assert all(parts)
    assert all(len(words(part)) <= limit or len(part) == 1 for part in parts)


@given(st.integers(2, 400), st.integers(4, 60))
def test_no_part_is_a_leftover(count: int, limit: int) -> None:
    sizes = [len(words(part)) for part in parts_of("ab " * count, limit)]
    assert len(sizes) <= 1 or min(sizes) >= limit // 3


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("One two three four.\n\nFive.\nSix seven eight nine.", ".\n\n"),  # paragraphs before lines
        ("one two three four\nfive. six seven eight nine", "\n"),  # lines before sentences
        ("One two three. Four five six. Seven eight nine.", "."),
        ("She said 'no two.' Four five six of.", ".'"),
        ("一二三四五。六七八九十。一二三四。", "。"),
        ("one two three four five six seven eight", ("two", "three", "four", "five", "six")),
    ],
)
def test_the_best_border_is_taken(text: str, ends: str | tuple[str, ...]) -> None:
    limit = len(words(text)) * 2 // 3
    first, *_, last = parts_of(text, limit)
    assert first.endswith(ends)
    assert last == text[len(text) - len(last) :]


def test_an_endless_word_is_cut_between_tokens() -> None:
    assert parts_of("abc" * 10, 4) == ["abc" * 4, "abc" * 3, "abc" * 3]


def test_a_part_that_grows_when_it_stands_alone_is_made_smaller() -> None:
    text = "ab " * 100
    parts = cut(text, words(text), 40, lambda part: len(words(part)) + 10 <= 40)
    assert "".join(parts) == text
    assert max(len(words(part)) for part in parts) <= 30
