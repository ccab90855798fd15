from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from namm_llm.engine.text import StopStrings


def shown(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    found = StopStrings(stops)
    return "".join(found.feed(piece) for piece in pieces) + found.flush(), found.found


@pytest.mark.parametrize(
    ("pieces", "stops", "text", "stopped"),
    [
        (["ab", "cd"], [], "abcd", False),
        (["one EN", "D two"], ["END"], "one ", True),
        (["one E", "N", "D"], ["END"], "one ", True),
        (["one EN", "TRY"], ["END"], "one ENTRY", False),
        (["one EN"], ["END"], "one EN", False),
        (["aaab"], ["aab"], "a", True),
        (["a", "a", "a", "b"], ["aab"], "a", True),
        (["END"], ["END"], "", True),
        (["x\n", "\ny"], ["\n\n", "y"], "x", True),
    ],
)
def test_stop_strings_end_the_text(
    pieces: list[str], stops: list[str], text: str, stopped: bool
) -> None:
    assert shown(pieces, stops) == (text, stopped)


@given(
    st.text("ab", max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.data(),
)
def test_it_does_not_matter_how_the_text_is_cut(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))) | {0, len(text)})
    pieces = [text[a:b] for a, b in pairwise(cuts)]
    assert shown(pieces, stops) == shown(list(text), stops)


def test_text_is_shown_as_soon_as_it_is_clear() -> None:
    found = StopStrings(["END"])
    assert [found.feed(piece) for piece in ("one", " E", "x", "EN", "D", "more")] == [
        "one",
        " ",
        "Ex",
        "",
        "",
        "",
    ]
