"""LangChain's caches of answers: one answer belongs to one document, one model, one set of
settings.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_namm import ChatNamm, NammLLM

from namm_llm import Document, Runner


def text_of(answer: Any) -> str:
    return answer if isinstance(answer, str) else str(answer.text)


@pytest.mark.parametrize("cls", [ChatNamm, NammLLM])
def test_answers_about_living_documents_are_told_apart(long_folder: Path, cls: Any) -> None:
    runner = Runner.load(long_folder)
    asked = cls(model=str(long_folder), max_tokens=4, cache=InMemoryCache())
    for n in range(12):  # Python gives the address of one that is gone to the next one
        document = runner.read(f"Doc {n}. " * 20)
        expected = document.ask("What?", max_tokens=4).text
        assert text_of(asked.invoke("What?", memory=document)) == expected
        del document


@pytest.mark.parametrize("cls", [ChatNamm, NammLLM])
def test_a_file_that_was_written_again_is_another_document(
    two_documents: list[Document], two_files: list[Path], long_folder: Path, cls: Any
) -> None:
    asked = cls(
        model=str(long_folder), max_tokens=6, cache=InMemoryCache(), memory=str(two_files[0])
    )
    expected = [document.ask("What?", max_tokens=6).text for document in two_documents]
    assert expected[0] != expected[1]
    assert text_of(asked.invoke("What?")) == expected[0]
    shutil.copy(two_files[1], two_files[0])
    assert text_of(asked.invoke("What?")) == expected[1]


@pytest.mark.parametrize("cls", [ChatNamm, NammLLM])
def test_the_same_document_by_any_name_is_answered_once(
    two_documents: list[Document], two_files: list[Path], long_folder: Path, cls: Any
) -> None:
    asked = cls(model=str(long_folder), max_tokens=2, cache=(cache := InMemoryCache()))
    for memory in (str(two_files[0]), two_files[0], two_documents[0]):
        asked.invoke("What?", memory=memory)
    assert len(cache._cache) == 1


def test_other_weights_in_the_same_folder_are_another_model(tmp_path: Path) -> None:
    from tests.tiny import save_tiny

    folder, answers = tmp_path / "model", []
    cache = InMemoryCache()
    for seed in (0, 1):
        save_tiny(folder, seed=seed)
        answers.append(ChatNamm(model=str(folder), max_tokens=6, cache=cache).invoke("What?").text)
    assert answers[0] != answers[1]


def test_tracing_is_told_plain_values(two_documents: list[Document]) -> None:
    chat = ChatNamm(max_tokens=2)
    told = chat._get_invocation_params(memory=two_documents[0], temperature=0.5)
    assert json.loads(json.dumps(told))["memory"] == two_documents[0].fingerprint
    assert told["temperature"] == 0.5
