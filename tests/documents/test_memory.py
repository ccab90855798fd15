"""A document is read once; what its memory answers does not depend on what was asked before, or on having been saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from namm_llm.documents import DocumentMemory, read_text
from namm_llm.errors import DocumentError, UsageError
from namm_llm.namm import Namm
from namm_llm.runner import Runner
from tests.tiny import save_tiny

TEXT = " ".join(f"The vault {n} holds {n * 7919 % 1000} coins and a fox." for n in range(10))
QUESTIONS = ["Who signs?", "How many coins does vault 3 hold, and is there a fox in it or not?", "Why?"]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"policy": "h2o", "budget": 0.25, "interval": 32},
    {"policy": "namm", "budget": 0.5, "interval": 32, "compete": "model"},
    {"policy": "reread", "budget": 0.25, "interval": 32},
]


def load(folder: Path, **settings: Any) -> Runner:
    if settings.get("policy") == "namm":
        torch.manual_seed(0)
        zeros = Namm.zeros()
        settings["namm"] = Namm.from_vector(torch.randn(len(zeros.theta)) * 0.1, zeros.mean, zeros.variance)
    return Runner.load(folder, **settings)


@pytest.fixture(params=SETTINGS, ids=["full", "h2o", "namm", "reread"])
def runner(request: pytest.FixtureRequest, tiny_folder: Path) -> Runner:
    return load(tiny_folder, **request.param)


@pytest.fixture
def saved(tiny_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "vaults.namm"
    load(tiny_folder, **SETTINGS[1]).read(TEXT).save(path)
    return path


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
        assert [answer.cache.stored_tokens for answer in together] == [answer.cache.stored_tokens for answer in alone]


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
    head = runner._format.head_tokens
    assert document.cache.eviction.protected == ((0, head),)
    sequence = document.cache.managed[0].sequences[0]
    assert all(segment.positions[:head].tolist() == list(range(head)) for segment in sequence.settled.segments())


def test_a_fork_is_written_to_without_changing_the_document(tiny_folder: Path) -> None:
    document = load(tiny_folder).read(TEXT)
    fork = document.fork()
    fork.cache.reset()
    assert document.info()["seen_tokens"] > fork.cache.stats().seen_tokens == 0


def test_progress_is_told(tiny_folder: Path) -> None:
    told: list[tuple[int, int]] = []
    runner = load(tiny_folder, chunk=100)
    seen = runner.read(TEXT, on_progress=lambda done, total: told.append((done, total))).info()["seen_tokens"]
    assert told == [*((done, seen) for done in range(100, seen, 100)), (seen, seen)]


# -- saving ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", SETTINGS, ids=["full", "h2o", "namm", "reread"])
def test_a_saved_memory_answers_as_if_never_saved(tiny_folder: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    document = load(tiny_folder, **settings).read(TEXT)
    document.save(tmp_path / "vaults.namm")
    opened = load(tiny_folder, **settings).open(tmp_path / "vaults.namm")
    for question in QUESTIONS:
        expected, found = document.ask(question, max_tokens=40), opened.ask(question, max_tokens=40)
        assert found.text == expected.text
        assert found.cache.stored_tokens == expected.cache.stored_tokens
    assert {**opened.info(), "nbytes": 0} == {**document.info(), "nbytes": 0}
    opened.save(tmp_path / "again.namm")
    assert (tmp_path / "again.namm").read_bytes() == (tmp_path / "vaults.namm").read_bytes()


def test_an_unquantised_memory_is_not_one_of_a_quantised_model(saved: Path, tiny_folder: Path) -> None:
    with pytest.raises(DocumentError, match=r"\(or the same in another quantization or dtype\)"):
        load(tiny_folder, **SETTINGS[1], quantization="nf4").open(saved)
    with pytest.raises(DocumentError, match=r"\(or the same in another quantization or dtype\)"):
        load(tiny_folder, **SETTINGS[1], dtype="bfloat16").open(saved)


def test_the_memory_of_another_model_is_refused(saved: Path, tmp_path: Path) -> None:
    other = load(save_tiny(tmp_path / "other", seed=1), **SETTINGS[1])
    with pytest.raises(DocumentError) as error:
        other.open(saved)
    assert f", this runner has {other.model_id} (or the same" in str(error.value)
    assert str(error.value).endswith("Load that model, or read the document again.")


@pytest.mark.parametrize("change", [{"policy": "snapkv"}, {"budget": 0.5}, {"interval": 64}, {"sinks": 3}, {"compete": "layer"}], ids=str)
def test_the_memory_of_other_settings_is_refused(saved: Path, tiny_folder: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DocumentError) as error:
        load(tiny_folder, **{**SETTINGS[1], **change}).open(saved)
    assert "was read with the settings 'h2o, budget 0.25, head', this runner has '" in str(error.value)
    assert str(error.value).endswith("Use the same settings, or read the document again.")


def rewrite(path: Path, **header: Any) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["namm_document"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {"namm_document": json.dumps({**metadata, **header})})


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "vaults.namm is damaged or cut short ("),
        (lambda path: path.write_bytes(path.read_bytes()[:5]), "vaults.namm is damaged or cut short (5 bytes)"),
        (lambda path: path.write_bytes(b""), "vaults.namm is damaged or cut short (0 bytes)"),
        (lambda path: path.write_text("hello"), "vaults.namm is damaged or cut short (5 bytes)"),
        (lambda path: save_file({"a": torch.zeros(1)}, path), "is a safetensors file, but no saved memory of a document."),
        (lambda path: rewrite(path, version=99), "has format version 99, this program knows version 1. Read the document again."),
        (lambda path: rewrite(path, more=1), "is a safetensors file, but no saved memory of a document."),
        (lambda path: rewrite(path, seen_tokens=3), " tokens instead of 3. Read the document again."),
        (lambda path: rewrite(path, cache={}), "vaults.namm is damaged ("),
        (lambda path: path.unlink(), "vaults.namm is not there; save one with DocumentMemory.save or `namm-llm read`."),
    ],
    ids=str,
)
def test_a_broken_memory_is_explained(saved: Path, tiny_folder: Path, break_it: Callable[[Path], Any], message: str) -> None:
    runner = load(tiny_folder, **SETTINGS[1])
    break_it(saved)
    with pytest.raises(DocumentError) as error:
        DocumentMemory.load(saved, runner)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_is_no_memory(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="is a folder, not a saved memory"):
        load(tiny_folder).open(tmp_path)


def test_saving_where_nothing_can_be_written_leaves_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    document = load(tiny_folder).read("The fox.")
    with pytest.raises(DocumentError, match="cannot be written: "):
        document.save(tmp_path / "no" / "folder.namm")
    (tmp_path / "taken").mkdir()
    with pytest.raises(DocumentError, match="cannot be written: "):
        document.save(tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_saving_over_a_memory_replaces_it_whole(saved: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document, before = load(tiny_folder, **SETTINGS[1]).read("The fox."), saved.read_bytes()

    def full_disk(*args: object) -> None:
        Path(str(args[1])).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("namm_llm.documents.saved.save_file", full_disk)
        with pytest.raises(DocumentError, match="cannot be written: No space left on device"):
            document.save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.glob("*.part")) == list(saved.parent.glob(".*.part")) == []
    document.save(saved)
    assert saved.read_bytes() != before


# -- text -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "notes.txt is empty; there is nothing to read."),
        (b" \n\t", "notes.txt is empty; there is nothing to read."),
        (b"\x7fELF\x00\x01\xff", "notes.txt is binary (byte 6 of 7); convert it to UTF-8 text first."),
        (b"text\x00more", "notes.txt is binary (a zero byte at position 4); convert it to text first."),
        ("é".encode("latin-1"), "notes.txt is not UTF-8 text (byte 0 of 1); convert it to UTF-8 text first."),
        ("text".encode("utf-16"), "notes.txt is binary (byte 0 of 10); convert it to UTF-8 text first."),
    ],
)
def test_files_that_are_no_text_are_explained(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(data)
    with pytest.raises(DocumentError) as error:
        read_text(path)
    assert str(error.value) == str(tmp_path / message)


def test_files_that_are_not_there_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"there is no file .*nothing\.txt\."):
        read_text(tmp_path / "nothing.txt")
    with pytest.raises(DocumentError, match="is a folder; name a text file"):
        read_text(tmp_path)


def test_text_files_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes("\ufeffEin Café.\r\n".encode())
    assert read_text(tmp_path / "notes.txt") == "Ein Café.\r\n"


@pytest.mark.parametrize("text", ["", " \n", "a\0b", "a\ud800", b"bytes"])
def test_a_runner_refuses_what_is_no_text(tiny_folder: Path, text: Any) -> None:
    with pytest.raises(DocumentError, match=r"^the document "):
        load(tiny_folder).read(text)


def test_an_empty_question_is_refused(tiny_folder: Path) -> None:
    document = load(tiny_folder).read("The fox.")
    with pytest.raises(UsageError, match="the question is empty"):
        document.ask(" ")
    assert document.ask_many([]) == []
