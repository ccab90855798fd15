"""The bundled model, as users get it."""

from __future__ import annotations

from pathlib import Path

import pytest

import namm_llm
from examples.demo import Record, build
from namm_llm import Runner
from namm_llm.tasks.records import LISTS, plural

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
    return sum(record.answered_by(answer.text) for record, answer in zip(records, answers, strict=True))


def test_it_looks_facts_up(document):
    memory, records = document
    assert memory.info()["seen_tokens"] > 1900
    assert right(records, memory.ask_many([record.question for record in records])) >= RECORDS - 1
    other = [f"Tell me the {record.kind} of the {record.name}." for record in records]
    assert right(records, memory.ask_many(other)) >= RECORDS - 1


def test_it_says_what_is_not_stated(document):
    memory, _ = document
    answers = memory.ask_many(["What is the access code of the purple harbour?", "What is the room number of the wooden engine?"])
    assert all("not stated" in answer.text for answer in answers)


def test_it_lists_numbered_entries_and_says_where_they_end(runner):
    text, _ = build(runner, seed=3, count=RECORDS)
    entries = [f"Exhibit {number} is the {name}." for number, name in enumerate(("copper lantern", "broken oar", "winter coat"), 1)]
    sentences = text.split(". ")
    for entry, share in zip(entries, (0.7, 0.2, 0.5), strict=True):  # not in their order
        sentences.insert(int(share * len(sentences)), entry[:-1])
    answer = runner.read(". ".join(sentences)).ask("List all exhibits.", max_tokens=100)
    assert answer.text.strip().splitlines() == [*entries, "Exhibit 4 is not stated."]


@pytest.mark.parametrize("question", LISTS)
def test_it_lists_the_records_of_a_kind_in_their_order(document, question):
    memory, records = document
    for kind in {record.kind for record in records}:
        asked = question.format(kinds=plural(kind))
        assert memory.ask(asked, max_tokens=200).text.strip().splitlines() == [record.sentence for record in records if record.kind == kind]


def test_a_quarter_of_the_tokens_still_lists(runner, document):
    _, records = document
    text, _ = build(runner, seed=3, count=RECORDS)
    answer = Runner.load(budget=0.25).read(text).ask(f"List all {plural(records[0].kind)}.", max_tokens=200)
    assert answer.text.strip().splitlines() == [record.sentence for record in records if record.kind == records[0].kind]


def test_it_lists_again_in_the_same_chat_and_what_was_told_in_turns(runner):
    sentences = [f"The door code of the {name} is {code}." for name, code in (("northern station", 40713), ("old mill", 982))]
    once = [{"role": "user", "content": f"{' '.join(sentences)}"}]
    turns = [
        {"role": "user", "content": sentences[0]},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": sentences[1]},
    ]
    for told in (once, turns):
        chat = [*told, {"role": "assistant", "content": "Noted."}]
        for question in ("List all door codes.", "Which door codes are stated?"):
            chat.append({"role": "user", "content": question})
            chat.append({"role": "assistant", "content": runner.chat(chat, max_tokens=100).text.strip()})
            assert chat[-1]["content"].splitlines() == sentences


def test_an_answer_ends_by_itself_and_restates_the_question(document):
    memory, records = document
    answer = memory.ask(records[0].question)
    assert answer.text.strip() == records[0].sentence
    assert answer.finish_reason == "stop"


def test_facts_told_in_a_chat_are_remembered(runner):
    told = [{"role": "user", "content": "The door code of the northern station is 40713."}, {"role": "assistant", "content": "Noted."}]
    answer = runner.chat([*told, {"role": "user", "content": "What is the door code of the northern station?"}])
    assert "40713" in answer.text


def test_a_quarter_of_the_tokens_still_answers(runner):
    text, records = build(runner, seed=3, count=RECORDS)
    memory = Runner.load(budget=0.25, interval=256).read(text)
    assert memory.info()["kept_fraction"] <= 0.25
    assert right(records, memory.ask_many([record.question for record in records])) >= RECORDS // 2


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_it_keeps_its_wired_layers_and_answers(quantization):
    runner = Runner.load(quantization=quantization, dtype="float32")
    kinds = {
        name.rsplit(".", 1)[-1]: type(module).__name__ for name, module in runner.loaded.model.named_modules() if name.endswith("_proj")
    }
    quantised = {name for name, kind in kinds.items() if kind in ("Linear4bit", "Linear8bitLt")}
    assert quantised == {"k_proj", "v_proj"}
    text, records = build(runner, seed=3, count=RECORDS)
    memory = runner.read(text)
    assert right(records, memory.ask_many([record.question for record in records])) >= RECORDS - 2


def test_its_files(runner):
    assert (FOLDER / "model.safetensors").stat().st_size <= 25e6
    assert runner.context_window == 32_768
    assert runner.render_chat([{"role": "user", "content": "Hello"}]) == "<bos><|user|>\nHello<|end|>\n<|assistant|>\n"
    card = (FOLDER / "README.md").read_text()
    assert "## Scores" in card
