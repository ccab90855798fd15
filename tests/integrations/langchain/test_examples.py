"""The LangChain examples run as they stand, offline, with the bundled model; shorter texts, so that
they are quick.
"""

from __future__ import annotations

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("lang*.py")), ids=lambda path: path.stem)
def test_examples_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What an example printed, which must name the tokens kept and the time."""
    text = capsys.readouterr().out
    assert "kept" in text
    assert text.rstrip().splitlines()[-1].endswith(" s")
    return text


def test_an_agent_looks_up_before_it_answers(capsys: pytest.CaptureFixture[str]) -> None:
    from examples.langchain_agent import CODES, main

    messages = main()
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert messages[1].tool_calls[0]["name"] == "access_codes"
    assert CODES["golden lamp"] in messages[-1].text
    assert "golden lamp" in told(capsys)


def test_a_graph_summarises_the_parts_and_then_their_summaries(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from examples.langgraph_summary import main

    state = main(characters=3000, part=1000)
    assert len(state["summaries"]) == len(state["parts"]) >= 3
    assert len(state["kept"]) == len(state["parts"]) + 1
    assert sum(kept for kept, _ in state["kept"]) < sum(seen for _, seen in state["kept"])
    assert f"{len(state['parts'])} parts: " in told(capsys)


def test_many_questions_read_their_text_once(capsys: pytest.CaptureFixture[str]) -> None:
    from examples.langchain_ten_questions import main

    first, *others = main(records=16, questions=4)
    assert max(others) * 20 < first
    assert told(capsys).count("(right)") >= 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_index_answers_from_memories(capsys: pytest.CaptureFixture[str]) -> None:
    from examples.langchain_index import main

    assert main(documents=2, records=3, questions=2) == 2
    assert told(capsys).count("kept sentence: ['The ") >= 1


def test_a_thread_goes_on_after_a_restart(capsys: pytest.CaptureFixture[str]) -> None:
    from examples.langgraph_resume import main

    first, second = main(records=3)
    assert second * 5 < first
    assert told(capsys).count("kept") == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_retrieval_finds_the_answers(capsys: pytest.CaptureFixture[str]) -> None:
    from examples.langchain_rag import main

    assert main(records=16) >= 2
    assert told(capsys).count("kept") == 3
