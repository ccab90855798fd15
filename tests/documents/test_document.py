"""A document is read once, whole or piece by piece; what its memory answers does not depend on what
was asked before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from namm_llm.document import Document
from namm_llm.documents import read_header
from namm_llm.errors import ContextError, DocumentError, UsageError
from namm_llm.runner import Runner
from tests.documents.vaults import IDS, QUESTIONS, SETTINGS, TEXT, load
from tests.tiny import save_tiny


@pytest.fixture(params=SETTINGS, ids=IDS)
def runner(request: pytest.FixtureRequest, tiny_folder: Path) -> Runner:
    return load(tiny_folder, **request.param)


def test_reading_and_asking_is_one_prompt(tiny_folder: Path) -> None:
    runner = load(tiny_folder)
    answer = runner.read(TEXT).ask(QUESTIONS[0], max_tokens=20)
    whole = runner.chat([{"role": "user", "content": f"{TEXT}\n\n{QUESTIONS[0]}"}], max_tokens=20)
    assert answer.text == whole.text
    assert answer.usage.input_tokens == whole.usage.input_tokens
    assert answer.usage.cached_tokens == runner.read(TEXT).info()["seen_tokens"]


def test_asking_changes_nothing(runner: Runner) -> None:
    document = runner.read(TEXT)
    info = document.info()
    first = [document.ask(question, max_tokens=12) for question in QUESTIONS]
    again = [document.ask(question, max_tokens=12) for question in reversed(QUESTIONS)]
    assert [answer.text for answer in first] == [answer.text for answer in reversed(again)]
    assert document.info() == info


def test_many_questions_get_the_answers_they_get_alone(runner: Runner) -> None:
    document = runner.read(TEXT)
    for sampling in ({}, {"temperature": 1.0, "seed": 5}):
        alone = [document.ask(question, max_tokens=40, **sampling) for question in QUESTIONS]
        together = document.ask_many(QUESTIONS, max_tokens=40, **sampling)
        assert [answer.text for answer in together] == [answer.text for answer in alone]
        assert [answer.usage for answer in together] == [answer.usage for answer in alone]
        assert [answer.cache.stored_tokens for answer in together] == [
            answer.cache.stored_tokens for answer in alone
        ]


def test_a_stream_says_what_ask_says(runner: Runner) -> None:
    document = runner.read(TEXT)
    stream = document.stream(QUESTIONS[0], max_tokens=12)
    assert "".join(piece.text for piece in stream) == document.ask(QUESTIONS[0], max_tokens=12).text


def test_what_was_evicted_is_told(tiny_folder: Path) -> None:
    info = load(tiny_folder, **SETTINGS[1]).read(TEXT).info()
    assert info["seen_tokens"] > 200
    assert info["stored_tokens"] <= 0.26 * info["seen_tokens"]
    assert info["policy"].startswith("h2o, budget 0.25")
    assert json.loads(json.dumps(info)) == info


def test_the_head_of_the_prompt_and_the_question_stay(tiny_folder: Path) -> None:
    runner = load(tiny_folder, policy="knorm", budget=8, interval=16)
    document = runner.read(TEXT)
    head = runner.session.format.head_tokens
    assert document.cache.config.protected == ((0, head),)
    sequence = document.cache.managed[0].sequences[0]
    assert all(
        segment.positions[:head].tolist() == list(range(head))
        for segment in sequence.retained.heads()
    )


def test_a_fingerprint_is_known_before_the_text_is_read(tiny_folder: Path, tmp_path: Path) -> None:
    runner = load(tiny_folder, policy="h2o", budget=0.5, interval=32)
    document = runner.read(TEXT)
    document.save(tmp_path / "vaults.namm")
    known = runner.memory_fingerprint(TEXT)
    assert document.fingerprint == read_header(tmp_path / "vaults.namm").fingerprint == known
    assert runner.memory_fingerprint(TEXT + " ") != known
    assert runner.with_cache("h2o", budget=0.4, interval=32).memory_fingerprint(TEXT) != known


def test_a_fork_is_written_to_without_changing_the_document(tiny_folder: Path) -> None:
    document = load(tiny_folder).read(TEXT)
    fork = document.fork()
    fork.cache.reset()
    assert document.info()["seen_tokens"] > fork.cache.stats().seen_tokens == 0


def test_progress_is_told(tiny_folder: Path) -> None:
    told: list[tuple[int, int]] = []
    runner = load(tiny_folder, chunk=100)
    seen = runner.read(TEXT, on_progress=lambda done, total: told.append((done, total))).info()[
        "seen_tokens"
    ]
    assert told == [*((done, seen) for done in range(100, seen, 100)), (seen, seen)]


@pytest.mark.parametrize("text", ["", " \n", "a\0b", "a\ud800", b"bytes"])
def test_a_runner_refuses_what_is_no_text(tiny_folder: Path, text: Any) -> None:
    with pytest.raises(DocumentError, match=r"^the document "):
        load(tiny_folder).read(text)


def test_an_empty_question_is_refused(tiny_folder: Path) -> None:
    document = load(tiny_folder).read("The fox.")
    with pytest.raises(UsageError, match="the question is empty"):
        document.ask(" ")
    assert document.ask_many([]) == []


# -- several, and streams --------------------------------------------------------------------------
# -----------------------------------


def assert_same(found: Document, expected: Document) -> None:
    """The same tokens with the same numbers, to the last bit."""
    (mine, numbers), (other, expected_numbers) = found.cache.state(), expected.cache.state()
    assert numbers == expected_numbers
    assert mine.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in mine.items())
    assert found.info()["text_sha256"] == expected.info()["text_sha256"]


def test_several_documents_are_one_with_empty_lines_between(runner: Runner) -> None:
    assert_same(runner.read(["The fox.", TEXT]), runner.read(f"The fox.\n\n{TEXT}"))


@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
@pytest.mark.parametrize("chunk", [512, 50])
def test_a_stream_gives_the_memory_of_the_whole_text(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], chunk: int
) -> None:
    monkeypatch.setattr("namm_llm.documents.blocks.BLOCK", 150)
    runner = load(tiny_folder, **settings, chunk=chunk)
    text = TEXT.replace("fox. The", "fox.\nThe", 4)
    expected = runner.read(text)
    for pieces in (
        iter(text.splitlines(keepends=True)),
        iter(text),
        (text[at : at + 7] for at in range(0, len(text), 7)),
        iter([text]),
    ):
        assert_same(runner.read(pieces), expected)


def test_a_stream_is_not_asked_for_more_than_is_needed(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("namm_llm.documents.blocks.BLOCK", 200)
    runner, given, told = load(tiny_folder, chunk=16), 0, []

    def pieces() -> Iterator[str]:
        nonlocal given
        for line in TEXT.splitlines(keepends=True) * 5:
            for start in range(0, len(line), 50):
                given += 1
                yield line[start : start + 50]

    def progress(done: int, total: int) -> None:
        told.append((given, done, total))

    seen = runner.read(pieces(), on_progress=progress).info()["seen_tokens"]
    assert told[0][0] < given / 3  # it reads while the text still comes
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert all(done <= total for _, done, total in told)
    assert told[-1][1:] == (seen, seen)


def test_a_stream_may_be_what_the_same_runner_writes(tiny_folder: Path) -> None:
    runner = load(tiny_folder)
    written = runner.generate("The fox", max_tokens=12).text
    streamed = runner.read(piece.text for piece in runner.stream("The fox", max_tokens=12))
    assert streamed.info()["text_sha256"] == runner.read(written).info()["text_sha256"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ([], "the document is empty; there is nothing to read."),
        (iter([]), "the document is empty; there is nothing to read."),
        (iter([" ", "\n"]), "the document is empty; there is nothing to read."),
        (["a", ""], "document 2 of 2 is empty; there is nothing to read."),
        (["a", b"b"], "document 2 of 2 is bytes, not text; decode it first."),
        (iter(["a", b"b"]), "a piece of the document is bytes, not text; decode it first."),
        (
            iter(["a", "\0"]),
            "the document is binary (a zero byte at position 1); convert it to text first.",
        ),
        ({"a": "b"}, "the document is dict, not text; decode it first."),
        (3, "the document is int, not text; decode it first."),
    ],
    ids=lambda value: "stream" if isinstance(value, Iterator) else str(value),
)
def test_what_is_no_text_is_explained(tiny_folder: Path, text: Any, message: str) -> None:
    with pytest.raises(DocumentError) as error:
        load(tiny_folder).read(text)
    assert str(error.value) == message


def test_a_stream_that_is_too_long_is_refused_while_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("namm_llm.documents.blocks.BLOCK", 100)
    runner, given = (
        load(save_tiny(tmp_path, positions=64)),
        iter([TEXT[at : at + 10] for at in range(0, len(TEXT), 10)]),
    )
    with pytest.raises(ContextError, match="was trained on 64 positions"):
        runner.read(given)
    assert len(list(given)) > 20


# -- extending -------------------------------------------------------------------------------------
# -----------------------------------

MORE = " The vault 10 holds 190 coins, and Ann signs for it.\nNobody else does."


def test_an_extended_full_cache_is_that_of_one_reading(tiny_folder: Path) -> None:
    runner = load(tiny_folder)
    short, told = runner.read(TEXT), []
    long = short.extend(MORE, on_progress=lambda done, total: told.append((done, total)))
    whole = runner.read(TEXT + MORE)
    assert told[-1] == (long.info()["seen_tokens"] - short.info()["seen_tokens"],) * 2
    torch.testing.assert_close(
        long.cache.state()[0], whole.cache.state()[0], rtol=1e-4, atol=1e-4
    )  # chunks end elsewhere
    for question in QUESTIONS:
        assert long.ask(question, max_tokens=20).text == whole.ask(question, max_tokens=20).text
    varying = {
        "text_sha256": "",
        "nbytes": 0,
    }  # buffers grow by doubling, so the room in them depends on the way
    assert {**long.info(), **varying} == {**whole.info(), **varying}
    assert long.info()["text_sha256"] not in (
        whole.info()["text_sha256"],
        short.info()["text_sha256"],
    )


@pytest.mark.parametrize("name", ["h2o", "namm", "replay", "knorm"])
def test_an_extended_memory_is_that_of_one_reading_where_an_update_was_due(
    tiny_folder: Path, name: str
) -> None:
    first = load(tiny_folder).read(TEXT).info()["seen_tokens"]
    whole_text = TEXT + MORE * 8
    for interval in (first, first // 2 if first % 2 == 0 else first):
        runner = load(tiny_folder, policy=name, budget=0.3, interval=interval, chunk=interval)
        long, whole = runner.read(TEXT).extend(MORE * 8), runner.read(whole_text)
        assert long.info()["eviction_steps"] == whole.info()["eviction_steps"] >= 1
        for mine, other in zip(long.cache.managed, whole.cache.managed, strict=True):
            assert torch.equal(
                mine.sequences[0].retained.positions, other.sequences[0].retained.positions
            )
        assert (
            long.ask(QUESTIONS[1], max_tokens=20).text
            == whole.ask(QUESTIONS[1], max_tokens=20).text
        )


def test_extending_evicts_keeps_what_is_protected_and_changes_nothing_else(
    tiny_folder: Path,
) -> None:
    runner = load(tiny_folder, policy="knorm", budget=0.2, interval=32)
    short = runner.read(TEXT)
    info, answer = short.info(), short.ask(QUESTIONS[0], max_tokens=12).text
    fork = short.fork()
    fork.cache.protect([(40, 44)])
    protected = [
        *range(runner.session.format.head_tokens),
        *(at for at in range(40, 44) if at in positions(short)),
    ]
    long = fork.extend(MORE * 5).extend(iter([MORE, MORE]))
    assert long.info()["kept_fraction"] < 0.21
    assert long.info()["seen_tokens"] == runner.read(TEXT + MORE * 7).info()["seen_tokens"]
    assert set(protected) <= set(positions(long))
    assert short.info() == info
    assert short.ask(QUESTIONS[0], max_tokens=12).text == answer


def positions(memory: Document) -> list[int]:
    """Of the tokens that the first head of the first layer keeps."""
    return memory.cache.managed[0].sequences[0].retained.heads()[0].positions.tolist()


def test_a_memory_is_extended_by_a_stream_as_by_a_text(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("namm_llm.documents.blocks.BLOCK", 60)
    short = runner.read(TEXT)
    assert_same(short.extend(iter(MORE * 6)), short.extend(MORE * 6))


def test_mistakes_of_extending_are_one_clear_line(tmp_path: Path) -> None:
    document = load(save_tiny(tmp_path, positions=64)).read("The quick brown fox.")
    with pytest.raises(DocumentError, match=r"^the text is empty; there is nothing to read\.$"):
        document.extend(" ")
    with pytest.raises(
        ContextError, match=r"^the text has \d+ tokens after the \d+ of the document, but "
    ):
        document.extend(TEXT)
