"""Memories that are given to a model object: known by what they hold, opened within a limit."""

from __future__ import annotations

import gc
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from langchain_namm import ChatNamm
from llama_index.llms.namm import NammLLM
from namm_integrations.memories import LIMIT_VARIABLE, OPEN, OpenMemories, fingerprint_of

from namm_llm import Document, DocumentError, MemoryStore, Runner, UsageError


class Owner:
    """Stands for a pool of runners; only its life matters."""


def test_a_memory_is_known_by_what_it_holds(
    two_documents: list[Document], two_files: list[Path], tmp_path: Path
) -> None:
    shutil.copy(two_files[0], tmp_path / "copy.namm")
    known = [fingerprint_of(each) for each in (*two_documents, *two_files)]
    assert known[:2] == known[2:]
    assert known[0] != known[1]
    assert fingerprint_of(tmp_path / "copy.namm") == known[0]
    assert known[0][:12] in repr(two_documents[0])


def test_the_same_text_read_with_other_settings_is_another_memory(long_folder: Path) -> None:
    text = "The vault 1 holds 919 coins. " * 20
    known = [
        Runner.load(long_folder, policy="h2o", budget=0.5, interval=interval).read(text).fingerprint
        for interval in (16, 32)
    ]
    assert known[0] != known[1]


def test_open_memories_stay_within_their_limit(
    long_folder: Path, two_documents: list[Document], two_files: list[Path]
) -> None:
    runner, owner = Runner.load(long_folder), Owner()
    one = max(each.info()["nbytes"] for each in two_documents)
    memories = OpenMemories(limit=one + 1)
    first = memories.open(two_files[0], runner, owner)
    assert memories.open(two_files[0], runner, owner) is first
    memories.open(two_files[1], runner, owner)
    assert (len(memories), memories.nbytes <= one + 1) == (1, True)
    assert memories.open(two_files[0], runner, owner) is not first
    memories.limit = 1
    assert len(memories) == 0
    memories.open(two_files[0], runner, owner)
    assert len(memories) == 1


def test_a_limit_is_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OpenMemories("2MB").limit == 2_000_000
    monkeypatch.setenv(LIMIT_VARIABLE, "1GiB")
    assert OpenMemories().limit == 2**30
    with pytest.raises(UsageError, match="a limit of open memories is a size such as 2GiB, not"):
        _ = OpenMemories("0.5").limit


def test_memories_are_closed_with_their_owners(long_folder: Path, two_files: list[Path]) -> None:
    runner, memories = Runner.load(long_folder), OpenMemories()
    one, two = Owner(), Owner()
    memories.open(two_files[0], runner, one)
    memories.open(two_files[0], runner, two)
    del one
    gc.collect()
    assert len(memories) == 1
    del two
    gc.collect()
    assert len(memories) == 0


def test_two_threads_open_a_file_once(long_folder: Path, two_files: list[Path]) -> None:
    runner, memories, owner = Runner.load(long_folder), OpenMemories(), Owner()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: memories.open(two_files[0], runner, owner), range(8)))
    assert len({id(each) for each in found}) == 1


def test_a_file_that_cannot_be_opened_can_be_tried_again(
    long_folder: Path, two_files: list[Path], tmp_path: Path
) -> None:
    runner, memories, owner = Runner.load(long_folder), OpenMemories(), Owner()
    late = tmp_path / "late.namm"
    with pytest.raises(DocumentError, match="is not there"):
        memories.open(late, runner, owner)
    shutil.copy(two_files[0], late)
    assert memories.open(late, runner, owner).info()["seen_tokens"] > 0


def test_both_adapters_share_the_open_memories(long_folder: Path, two_files: list[Path]) -> None:
    chat = ChatNamm(model=str(long_folder), max_tokens=2)
    llm = NammLLM(long_folder, max_tokens=2)
    before = len(OPEN)
    chat.invoke("What?", memory=two_files[0])
    llm.complete("What?", memory=two_files[0])
    assert len(OPEN) == before + 1
    del chat, llm
    gc.collect()
    assert len(OPEN) == before


def test_the_name_of_a_kept_memory_is_a_memory(
    long_folder: Path, two_documents: list[Document]
) -> None:
    document = two_documents[0]
    MemoryStore().put("0123456789abcdef", document, name="vault")
    expected = document.ask("What?", max_tokens=6).text
    chat = ChatNamm(model=str(long_folder), max_tokens=6)
    llm = NammLLM(long_folder, max_tokens=6)
    for name in ("vault", "01234567"):
        assert chat.invoke("What?", memory=name).text == expected
        assert llm.complete("What?", memory=name).text == expected
    with pytest.raises(DocumentError, match="handbook is neither a file nor a kept memory"):
        chat.invoke("What?", memory="handbook")


@pytest.mark.parametrize("memory", [5, ["a.namm", "b.namm"]])
def test_what_can_be_no_memory_is_one_clear_line(memory: object) -> None:
    for make in (ChatNamm, NammLLM):
        with pytest.raises(UsageError, match="memory is a Document, the file of one or the name"):
            make(memory=memory)
