"""The bundled model, as users get it."""

from __future__ import annotations

from pathlib import Path

import pytest

import namm_llm
from examples.demo import Record, build
from namm_llm import Runner

FOLDER = Path(namm_llm.__file__).parent / "models" / "namm-tiny"
RECORDS = 16  # in a document of some 2 000 tokens


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner.load()


@pytest.fixture(scope="module")
def document(runner: Runner):
    text, records = build(runner, seed=3, count=RECORDS)
    return runner.read(text), records


def right(records: list[Record], answers) -> int:
    return sum(
        record.answered_by(answer.text) for record, answer in zip(records, answers, strict=True)
    )


def test_it_looks_facts_up(document):
    memory, records = document
    assert memory.info()["seen_tokens"] > 1900
    assert right(records, memory.ask_many([record.question for record in records])) >= RECORDS - 1
    other = [f"Tell me the {record.kind} of the {record.name}." for record in records]
    assert right(records, memory.ask_many(other)) >= RECORDS - 1


def test_it_says_what_is_not_stated(document):
    memory, _ = document
    answers = memory.ask_many(
        [
            "What is the access code of the purple harbour?",
            "What is the room number of the wooden engine?",
        ]
    )
    assert all("not stated" in answer.text for answer in answers)


def test_it_lists_numbered_entries_and_says_where_they_end(runner):
    text, _ = build(runner, seed=3, count=RECORDS)
    entries = [
        f"Exhibit {number} is the {name}."
        for number, name in enumerate(("copper lantern", "broken oar", "winter coat"), 1)
    ]
    sentences = text.split(". ")
    for entry, share in zip(entries, (0.7, 0.2, 0.5), strict=True):  # not in their order
        sentences.insert(int(share * len(sentences)), entry[:-1])
    answer = runner.read(". ".join(sentences)).ask("List all exhibits.", max_tokens=100)
    assert answer.text.strip().splitlines() == [*entries, "Exhibit 4 is not stated."]


def test_an_answer_ends_by_itself_and_restates_the_question(document):
    memory, records = document
    answer = memory.ask(records[0].question)
    assert answer.text.strip() == records[0].sentence
    assert answer.finish_reason == "stop"


def test_facts_told_in_a_chat_are_remembered(runner):
    told = [
        {"role": "user", "content": "The door code of the northern station is 40713."},
        {"role": "assistant", "content": "Noted."},
    ]
    answer = runner.chat(
        [*told, {"role": "user", "content": "What is the door code of the northern station?"}]
    )
    assert "40713" in answer.text


def test_a_quarter_of_the_tokens_still_answers(runner):
    text, records = build(runner, seed=3, count=RECORDS)
    memory = Runner.load(budget=0.25, interval=256).read(text)
    assert memory.info()["kept_fraction"] <= 0.25
    assert right(records, memory.ask_many([record.question for record in records])) >= RECORDS // 2


def test_its_files(runner):
    assert (FOLDER / "model.safetensors").stat().st_size <= 25e6
    assert runner.context_window == 32_768
    assert (
        runner.render_chat([{"role": "user", "content": "Hello"}])
        == "<bos><|user|>\nHello<|end|>\n<|assistant|>\n"
    )
    card = (FOLDER / "README.md").read_text()
    assert "## Scores" in card
