"""Text is shown as soon as it can be no tool call."""

from __future__ import annotations

import pytest

from namm_llm.models.tool_stream import ToolCallStream

TOOLS = [{"type": "function", "function": {"name": "ring"}}]


def shown(*pieces: str) -> list[str]:
    growing = ToolCallStream(TOOLS)
    return [growing.feed(piece) for piece in pieces]


@pytest.mark.parametrize(
    "text",
    ["As source [1] says", "a[i] < b", "see `code`", "[link](x)", "{x} and {", "1 < 2", "[a, b]"],
)
def test_citations_links_and_code_do_not_stop_a_stream(text: str) -> None:
    assert "".join(shown(*text, " is shown.")).startswith(text)


@pytest.mark.parametrize(
    "call",
    [
        '{"name": "ring", "arguments": {}}',
        '[{"name": "ring"}]',
        '<tool_call>{"name": "ring"}</tool_call>',
        '```json\n{"name": "ring"}\n```',
        '```\n{"name": "ring"}\n```',
        "<function=ring></function>",
        "[ring()]",
    ],
)
def test_no_character_of_a_call_is_shown(call: str) -> None:
    growing = ToolCallStream(TOOLS)
    assert "".join(growing.feed(character) for character in f"I ring. {call}") == "I ring. "
    rest, calls = growing.end()
    assert (rest, [each.name for each in calls]) == ("", ["ring"])


def test_what_turns_out_to_be_no_call_is_shown_at_the_end() -> None:
    growing = ToolCallStream(TOOLS)
    assert growing.feed('Take {"a": 1}.') == "Take "
    assert growing.end() == ('{"a": 1}.', [])


def test_without_tools_nothing_is_held() -> None:
    assert ToolCallStream([]).feed('{"name": "ring"}') == '{"name": "ring"}'


def test_one_call_at_most_where_calls_may_not_be_parallel() -> None:
    growing = ToolCallStream(TOOLS, parallel=False)
    growing.feed('{"name": "ring"}\n{"name": "ring"}')
    assert len(growing.end()[1]) == 1
